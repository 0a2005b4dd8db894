"""The classical models of the thesis: colour histograms or a network's features -> k-NN, SVM or random forest."""

"""What the methods of explanation are called; those that read finished maps need no more of them."""

# Class activation maps look at a layer, the others at the pixels.
OF_LAYERS = {"grad_cam": "Grad-CAM", "grad_cam_plus_plus": "Grad-CAM++", "hires_cam": "HiResCAM",
             "layer_cam": "LayerCAM", "xgrad_cam": "XGrad-CAM", "eigen_cam": "Eigen-CAM", "score_cam": "Score-CAM",
             "ablation_cam": "Ablation-CAM"}
OF_PIXELS = {"input_gradient": "input gradient", "smooth_grad": "SmoothGrad",
             "integrated_gradients": "integrated gradients", "occlusion": "occlusion"}
TITLES = OF_LAYERS | OF_PIXELS

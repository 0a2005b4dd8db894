"""Files and arrays -> figures and pages for a reader."""

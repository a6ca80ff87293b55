"""`isp-calibrate`: what a camera's frames say of the camera, as settings of isp-stream."""

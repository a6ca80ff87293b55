"""Development without a camera: `isp-develop` turns footage into pictures, films or recordings, on all cores or a
cluster."""

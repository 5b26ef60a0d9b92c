"""What people do with a model on a device, one file each. Apps work without a server, and do not know each other."""

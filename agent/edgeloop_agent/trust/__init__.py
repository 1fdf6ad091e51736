"""TUF metadata, verified on the device: the only code here that imports tuf and cryptography."""

"""cwic: content-weighted image compression."""

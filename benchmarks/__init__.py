"""Measurements: rate-distortion on any folder, and the demonstration. Not installed."""

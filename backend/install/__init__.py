"""The backend's own Python environment: made, checked, replaced and removed with the standard library alone."""

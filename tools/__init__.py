"""Programs of the repository: the demo, the benchmark, packaging; not part of the extension's zip."""

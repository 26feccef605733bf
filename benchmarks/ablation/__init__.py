"""Which parts of the method help, alone and together, on four tasks; the page is docs/ablation.md."""

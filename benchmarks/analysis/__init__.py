"""How does a trained model see, and where is it strong? Every figure and table of docs/analysis.md."""

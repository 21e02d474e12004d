"""The page: Gradio and nothing else. It knows the backends only through their door."""

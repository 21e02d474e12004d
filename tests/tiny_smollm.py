"""A random autoregressive Llama in SmolLM2's place: the real one takes seconds to read. tests/test_text_methods.py tries that."""

from tests.tiny_text import tiny as masked


def tiny():
    """What backends.text.smollm.load becomes."""
    model = masked(context=512)
    model.net.config.is_causal, model.net.config.max_position_embeddings = True, 512
    for layer in model.net.model.layers:
        layer.self_attn.is_causal = True
    model.tokenizer.pad_token = model.tokenizer.eos_token
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}: {% endfor %}"
    return lambda: (model.net, model.tokenizer)

"""Train the masked diffusion language model of the text world.

    python -m backends.worlds.text_build        # once: the teacher's stories, the tokenizer
    python -m backends.train.text_mdm --minutes 60

A bidirectional Llama with LLaDA's objective (Nie et al., arXiv 2502.09992, eq. 3 and its SFT form): of an answer each token is
masked with probability t ~ U(0, 1), and the cross-entropy of the masked ones is weighed by 1/t; the prompt is never masked,
but one time in ten all of it is, for guidance. Answers are padded with end tokens, which count. Resumes from the committed
weights; the optimiser's state stays in runs/.
"""

import json

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from backends.embedded import text_tokenizer
from backends.nets.smollm_start import pruned
from backends.text import smollm
from backends.text.scaffold import scaffold
from backends.train.common import RUNS, Clock, Ema, arguments, autocast, load_state, save_pretrained, save_state, stream
from backends.worlds import text
from backends.worlds.text_build import recipes, stories

LIKE = dict(is_causal=False, use_cache=False, rope_theta=500.0, max_position_embeddings=128)
SCRATCH = dict(hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6, num_key_value_heads=6, tie_word_embeddings=True)
MIX = {"sum": 0.36, "countdown": 0.24, "sudoku": 0.1, "profile": 0.18, "recall": 0.12}  # of the tokens
WRITER = {"story": 0.34, "recipe": 0.2, "profile": 0.2, "recall": 0.1, "sum": 0.16}  # of the writer's (text_writer.py)
LONGEST = 128


class Corpus:
    """Batches of one kind each: (ids, which may be masked), padded with end tokens."""

    def __init__(self, tokenizer):
        self.tokenizer, written = tokenizer, {"story": stories(), "recipe": recipes()}
        self.fixed, self.kept = ({k: [r for r in rows if text.held_out(r[0]) is out] for k, rows in written.items()} for out in (False, True))
        self.ask, self.answer, self.mask, self.null = (tokenizer.convert_tokens_to_ids(t) for t in ("<ask>", "<answer>", "<mask>", text.NULL))

    def tokens(self, words: str) -> list[int]:
        return self.tokenizer(words, add_special_tokens=False)["input_ids"]

    def batch(self, rng: np.random.Generator, kind: str, size: int, for_test: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """ids (size, N) and where an answer stands (size, N) bool."""
        rows = [self._row(rng, kind, for_test) for _ in range(size)]
        length = min(LONGEST, max(len(ids) for ids, _ in rows))
        ids = torch.full((size, length), self.tokenizer.eos_token_id)
        may = torch.zeros(size, length, dtype=torch.bool)
        for i, (row, where) in enumerate(rows):
            row, where = row[:length], where[:length]
            ids[i, : len(row)], may[i, : len(row)] = torch.tensor(row), torch.tensor(where)
            may[i, len(row) :] = where[-1]  # padding belongs to an answer, not to a scaffold
        return ids, may

    def _row(self, rng, kind, for_test):
        if kind in self.fixed:
            rows = (self.kept if for_test else self.fixed)[kind]
            prompt, answer = rows[rng.integers(len(rows))]
        else:
            example = text.draw(rng, kind, for_test)
            while kind == "notes" and len(self.tokens(example.prompt)) > LONGEST - 10:  # a cut would take its answer away
                example = text.draw(rng, kind, for_test)
            prompt, answer = example.prompt, example.answer
        before = [self.ask, *self.tokens(prompt.split(" #")[0]), self.answer]
        if kind == "profile" and rng.random() < 0.5:
            return self._form(rng, before, json.loads(answer))
        said = [*self.tokens(answer), self.tokenizer.eos_token_id]
        said += [self.tokenizer.eos_token_id] * (-len(said) % 4 + 4 * int(rng.choice(4, p=[0.5, 0.25, 0.15, 0.1])))
        return [*before, *said], [False] * len(before) + [True] * len(said)

    def _form(self, rng, before, facts):
        """As S³ decodes it: the object is given but for its slots, filled up with NULL."""
        values = {f: [] if v == text.NULL else self.tokens(v) for f, v in facts.items()}
        made = scaffold(self.tokens, self.mask, {f: len(v) + int(rng.integers(0, 8)) for f, v in values.items()})
        ids, may = list(made.ids), [False] * len(made.ids)
        for field, (a, b) in made.slots.items():
            ids[a:b] = values[field] + [self.null] * (b - a - len(values[field]))
            may[a:b] = [True] * (b - a)
        return [*before, *ids], [False] * len(before) + may


def diffusion_loss(net, ids, may, mask: int, levels: torch.Tensor, device: str, shift: bool = False) -> torch.Tensor:
    """(B,) bound on the negative log-likelihood of an answer's tokens, in nats a token; `levels` (B,): the shares t to mask.

    `shift`: the states at a position speak of the next token (MaskPredictor).
    """
    hidden = may & (torch.rand(ids.shape, device=ids.device) < levels[:, None])
    with autocast(device):
        states = net.model(input_ids=ids.masked_fill(hidden, mask)).last_hidden_state
        logits = net.lm_head((states.roll(1, 1) if shift else states)[hidden])  # only where it counts: the vocabulary is a fifth of the work
    lost = torch.nn.functional.cross_entropy(logits.float(), ids[hidden], reduction="none")
    return torch.zeros(ids.shape, device=ids.device).masked_scatter(hidden, lost / levels[:, None].expand_as(ids)[hidden]).sum(1) / may.sum(1).clamp_min(1)


def trainable(net) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in net.named_parameters() if p.requires_grad}


def fit(args, net, corpus: Corpus, mix: dict[str, float], keep, loss_of=diffusion_loss) -> None:
    """Train `net` on the corpus for args.minutes; `keep(net)` writes the averaged weights to args.out, from which it was read.

    A step sees three kinds, drawn by `mix` (shares of the tokens), args.tokens each. `loss_of` is called as `diffusion_loss` is.
    """
    device = args.device
    net.to(device).train()
    # Measured from SmolLM2's layers, 3.5 minutes each: Muon, 3,072 tokens a step, leaves sums at a bound of 0.97 nats a token and forms
    # at 6.1; AdamW, 2,048 a step, at 0.27 and 2.6: small steps keep more of what the layers know, and there are more of them.
    weights = [p for p in net.parameters() if p.requires_grad]
    optimiser, ema = torch.optim.AdamW(weights, lr=args.lr, betas=(0.9, 0.98), weight_decay=1e-3, fused=True), Ema(net, args.ema)
    log = json.loads((args.out / "training.json").read_text()) if (args.out / "training.json").exists() else {"tokens": 0, "minutes": 0}
    state_path = RUNS / f"{args.out.name}.pt"
    if (state := load_state(state_path)) and state["tokens"] >= log["tokens"]:
        for mine, saved in ((net, "net"), (ema.net, "ema")):
            mine.load_state_dict(state[saved], strict=False)
        optimiser.load_state_dict(state["optimiser"])
        log["tokens"], log["minutes"] = state["tokens"], state["minutes"]
    clock, began, step = Clock(args.minutes), log["minutes"], 0
    kinds = [k for k in mix if corpus.fixed.get(k, True)]
    odds = np.array([mix[k] for k in kinds]) / sum(mix[k] for k in kinds)
    ema.updates = log["tokens"] // args.tokens // 3
    held = {k: [m.to(device) for m in corpus.batch(np.random.default_rng(text.HELD_OUT_SEED), k, args.tested, True)] for k in kinds}
    print(f"{sum(p.numel() for p in weights) / 1e6:.1f} M trained parameters, {log['tokens']} tokens so far, kinds {kinds}", flush=True)

    start = log["tokens"]

    def three(i: int) -> list[tuple]:
        """A step's batches: of unlike lengths, hence apart."""
        rng = np.random.default_rng([args.seed, start, i])
        return [corpus.batch(rng, kind, max(4, args.tokens // TYPICAL[kind])) for kind in map(str, rng.choice(kinds, 3, p=odds))]

    coming = stream(three, args.workers)

    @torch.no_grad()
    def bound() -> dict[str, float]:
        levels = ((torch.arange(args.tested) + 0.5) / args.tested).to(device)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            found = {k: round(float(loss_of(ema.net, *rows, corpus.mask, levels, device).mean()), 3) for k, rows in held.items()}
        return found

    def save() -> None:
        log["minutes"] = round(began + clock.seconds / 60, 1)
        save_state(state_path, net=trainable(net), ema=trainable(ema.net), optimiser=optimiser, tokens=log["tokens"], minutes=log["minutes"])
        keep(ema.net)
        (args.out / "training.json").write_text(json.dumps(log | {"held_out_bound": bound()}, indent=1) + "\n")

    while not clock.over:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 100) * min(1, clock.left / (clock.budget * 0.33)) + 1e-6
        for ids, may in next(coming):
            ids, may = ids.to(device), may.to(device)
            if torch.rand(()) < 0.1:  # without its prompt, for guidance
                answer = ids == corpus.answer
                ids = ids.masked_fill(answer | (answer.cumsum(1) == 0), corpus.mask)
            levels = ((torch.rand(1) + torch.arange(len(ids)) / len(ids)) % 1).to(device).clamp_min(0.02)  # evenly spread over the batch
            loss = loss_of(net, ids, may, corpus.mask, levels, device).mean() / 3
            loss.backward()
            log["tokens"] += ids.numel()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step(), optimiser.zero_grad()
        ema.update(net)
        step += 1
        if clock.every(120 if device == "cpu" else 20, "log"):
            print(f"{clock.seconds / 60:6.1f} min  {log['tokens']:,} tokens  loss {3 * loss.item():.3f}  bound {bound()}", flush=True)
        if clock.every(600 if device == "cpu" else 240, "save"):
            save()
    save()
    print(json.dumps(log))


def main() -> None:
    args = arguments("text-mdm", lr=6e-4, tokens=1024, ema=0.995, start="smollm2", tested=48)
    tokenizer = text_tokenizer()
    # Explicit attention: the fused kernel's backward is slow on a CPU.
    if (args.out / "config.json").exists():
        net = LlamaForCausalLM.from_pretrained(args.out, dtype=torch.float32, attn_implementation="eager")
    elif args.start == "smollm2":
        net = pruned(*smollm.load(), tokenizer, **LIKE)
    else:
        ends = dict(bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id)
        net = LlamaForCausalLM._from_config(LlamaConfig(vocab_size=len(tokenizer), **ends, **LIKE, **SCRATCH), attn_implementation="eager")
    fit(args, net, Corpus(tokenizer), MIX, lambda net: save_pretrained(net, args.out))


TYPICAL = {"sum": 24, "countdown": 40, "sudoku": 56, "profile": 80, "recall": 96, "notes": 120, "recipe": 112, "story": 88}  # tokens of a row

if __name__ == "__main__":
    main()

# make studio | test | fuzz | load | access | replicas | lock | proofs | proof METHOD=slug | bench | train MODEL=name MINUTES=n | evaluate | style | space SPACE=owner/name
PYTHON ?= python3
BIN = .venv/bin
HOST ?= 127.0.0.1
PORT ?= 7860
MINUTES ?= 10

.PHONY: studio test fuzz load access replicas lock proofs proof bench train evaluate style space system system-dev

studio: .venv/studio system
	$(BIN)/python app.py --host $(HOST) --port $(PORT)

test: .venv/dev system-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

fuzz: .venv/dev
	FUZZ=$(or $(FUZZ),3000) $(BIN)/python -m pytest -n auto --maxprocesses 4 tests/test_fuzz.py

load: .venv/dev
	$(BIN)/python -m tests.load $(ARGS)

lock: .venv/dev
	$(BIN)/python scripts/lock.py

proofs: .venv/dev
	$(BIN)/python -m pytest -m proof tests/proofs; held=$$?; $(BIN)/python -m backends.evaluate.restoration && $(BIN)/python -m backends.evaluate.objects && exit $$held

proof: .venv/dev
	$(BIN)/python -m pytest -m "proof or not proof" tests/proofs/test_$(METHOD).py -s

access: .venv/dev
	ACCESS=all $(BIN)/python -m pytest tests/test_browser_access.py

replicas: .venv/dev
	$(PIP) -r requirements-ray.txt
	$(BIN)/python -m tests.replicas

bench: .venv/dev
	$(BIN)/python -m backends.bench

train: .venv/studio
	$(BIN)/python -m backends.train.$(MODEL) --minutes $(MINUTES) $(ARGS)

evaluate: .venv/studio
	$(BIN)/python -m backends.evaluate.emoji_ldm $(ARGS)

space: .venv/studio
	rm -rf runs/space && mkdir -p runs/space && git archive HEAD | tar -x -C runs/space
	$(BIN)/hf upload $(SPACE) runs/space . --repo-type space --delete "*"

style: .venv/dev
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

.venv/bin/python:
	$(PYTHON) -m venv .venv

PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.venv/studio: requirements.txt requirements-nodeps.txt | .venv/bin/python
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -r requirements-nodeps.txt
	touch $@

.venv/dev: requirements.txt requirements-nodeps.txt requirements-dev.txt | .venv/bin/python
	$(PIP) -r requirements-dev.txt
	$(PIP) --no-deps -r requirements-nodeps.txt
	touch $@ .venv/studio

# Debian packages: installed when run as root on Debian, else named when missing.
system:
	@sh scripts/system_packages.sh $$(cat packages.txt)

system-dev:
	@sh scripts/system_packages.sh $$(cat packages.txt) chromium

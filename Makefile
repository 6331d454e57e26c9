# `make book` and `make test` need Python 3.11, 3.12 or 3.13 and nothing else: they set up .venv by themselves.
# Another interpreter: make book PYTHON=/path/to/python
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: student solutions instructor grade check-exercises project grade-project
.PHONY: slides pdf epub offline release
.PHONY: help book html notebooks test bench gates protocol lint format set-repository colab-check web-check clean

help:
	@echo "make book            execute the chapters and build the book"
	@echo "make test            unit tests, and every chapter against its stored outputs"
	@echo "make html            build the book from the stored outputs, without executing"
	@echo "make notebooks       execute the chapters in place"
	@echo "make bench           measure quality, speed and memory"
	@echo "make gates           what the simulated market must show, on three seeds; writes its datasheet"
	@echo "make protocol        the model beside its rivals and without its parts; goes on where it stopped"
	@echo "make lint            check style; make format repairs it"
	@echo "make colab-check     try the package, all chapters and student editions on Colab's versions (CHAPTERS=\"02 05\")"
	@echo "make web-check       open every page of the built book in Chromium: links, weight, keyboard, axe"
	@echo "make student         a course's edition with blank exercises; make solutions: with answers (OUT=folder)"
	@echo "make instructor SEED=...  with notes, keys and the hidden tests of your seed"
	@echo "make grade SUBMISSIONS=folder SEED=...  mark filled notebooks, into OUT=marks.csv"
	@echo "make check-exercises execute the chapters: each solution must pass its tests, each blank stub fail"
	@echo "make project SEED=...  a market whose truth you alone know, with a brief (STUDENT=name: one for each)"
	@echo "make grade-project SUBMISSION=folder SEED=...  predictions and decision against the truth"
	@echo "make slides          10 to 20 slides for each chapter, in build/slides (CHAPTERS=\"05 20\", PDF=1: PDF too)"
	@echo "make pdf             the built book as one PDF; make epub: as EPUB; make offline: as a zip to open from disk"
	@echo "make release VERSION=1.2.3  set the version, build and check all that readers download (DRY=1: in a copy)"
	@echo "make set-repository URL=https://github.com/owner/name"

$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	fits='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; \
	if ! { $(PY) -m pip --version && $(PY) -c "$$fits"; } >/dev/null 2>&1; then \
	  found=""; \
	  for candidate in "$(PYTHON)" python3.13 python3.12 python3.11 python3 python; do \
	    if [ -n "$$candidate" ] && "$$candidate" -c "$$fits" >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	    if [ -n "$(PYTHON)" ]; then break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "No Python 3.11, 3.12 or 3.13 with the venv module was found. Name one: make PYTHON=/path/to/python" >&2; exit 1; \
	  fi; \
	  echo "Setting up .venv with $$($$found --version)"; \
	  "$$found" -m venv --clear .venv; \
	fi; \
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[book,test,tune,explain,compress,scale]"
	@touch $@

book: $(STAMP)
	@$(PY) tools/build.py book

html: $(STAMP)
	@$(PY) tools/build.py html

notebooks: $(STAMP)
	@$(PY) tools/build.py notebooks

test: $(STAMP)
	@TF_NUM_INTRAOP_THREADS=2 OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadscope --no-loadscope-reorder --quick notebooks tests

bench: $(STAMP)
	@$(PY) -m benchmarks

gates: $(STAMP)
	@$(PY) -m benchmarks.gates

protocol: $(STAMP)
	@$(PY) -m benchmarks.protocol

lint: $(STAMP)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(STAMP)
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

set-repository: $(STAMP)
	@$(PY) tools/bootstrap.py $(if $(URL),--url "$(URL)")

colab-check: $(STAMP)
	@$(PY) tools/colab_check.py $(CHAPTERS) $(if $(FREEZE),--freeze "$(FREEZE)")

# The browser's driver has an environment of its own: what is installed beside the chapters is part of their key.
web-check: $(STAMP)
	@test -x _build/web/bin/python || { $(PY) -m venv _build/web && \
	  _build/web/bin/python -m pip install -q --disable-pip-version-check playwright axe-playwright-python; }
	@_build/web/bin/python tools/web_check.py $(if $(PAGES),--pages $(PAGES)) $(if $(BEFORE),--before "$(BEFORE)")

clean:
	rm -rf _build build *.egg-info .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -print0 | xargs -0 rm -rf

student solutions: $(STAMP)
	@$(PY) tools/editions.py $@ $(if $(OUT),--out "$(OUT)")

instructor: $(STAMP)
	@$(PY) tools/editions.py instructor $(if $(SEED),--seed $(SEED)) $(if $(OUT),--out "$(OUT)")

grade: $(STAMP)
	@$(PY) tools/grade.py "$(SUBMISSIONS)" --seed $(SEED) $(if $(OUT),--out "$(OUT)")

check-exercises: $(STAMP)
	@$(PY) tools/editions.py check $(CHAPTERS)

project: $(STAMP)
	@$(PY) tools/project.py make --seed $(SEED) $(if $(STUDENT),--student "$(STUDENT)") $(if $(OUT),--out "$(OUT)")

grade-project: $(STAMP)
	@$(PY) tools/project.py grade --seed $(SEED) --submission "$(SUBMISSION)" $(if $(STUDENT),--student "$(STUDENT)")

slides: $(STAMP)
	@$(PY) tools/slides.py $(CHAPTERS) $(if $(PDF),--pdf) $(if $(OUT),--out "$(OUT)")

# In a folder of its own: what is installed beside the chapters is part of their key.
_build/print/pypdf: | $(STAMP)
	@$(PY) -m pip install -q --disable-pip-version-check --target _build/print pypdf

pdf: $(STAMP) _build/print/pypdf
	@PYTHONPATH=_build/print $(PY) tools/book_pdf.py $(if $(OUT),--out "$(OUT)")

epub: $(STAMP)
	@$(PY) tools/book_epub.py $(if $(OUT),--out "$(OUT)")

offline: $(STAMP)
	@$(PY) tools/offline.py $(if $(OUT),--out "$(OUT)")

release: $(STAMP) _build/print/pypdf
	@$(PY) tools/release.py "$(VERSION)" $(if $(DRY),--dry-run)

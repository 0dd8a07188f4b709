# make demo       the quickstart notebook on recorded input -> outputs/demo/
# make test       the tests, a few minutes          make test-slow  every notebook and browser test
# make lab        JupyterLab at the quickstart      make pictures   the pictures in media/ anew
# make test-colab the package on Colab's versions   make screenshots  media/'s pages from a browser
# make rendered   the chapters with their outputs -> media/rendered/, after a chapter was changed
#
# PYTHON=python3.12       another interpreter (3.11 to 3.13)
# TORCH_INDEX=<address>   PyTorch's package index for your machine, from the "Get Started" page on
#                         PyTorch's site (Linux, Pip, CPU: a download ten times smaller)
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
INSTALLED := $(VENV)/.ivkit
INSTALLED_TEST := $(VENV)/.ivkit-test

.PHONY: demo test test-slow test-colab lab pictures screenshots rendered
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/python -m ivkit demo

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks/00_quickstart.ipynb

test: $(INSTALLED_TEST)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n logical --maxprocesses 4 --dist loadfile

test-slow: $(INSTALLED_TEST)
	$(BIN)/python -m pytest -m "slow or browser"

pictures: $(INSTALLED)
	$(BIN)/python -m tests.bench pictures

rendered: $(INSTALLED)
	$(BIN)/python -m tests.bench rendered $(CHAPTERS)

screenshots: $(INSTALLED_TEST)
	$(BIN)/python -m tests.browser.screenshots

# The versions of tests/colab.txt; no browser, no JupyterLab. On Python 3.13 they are Colab's to the
# last, with a torch of some gigabytes: make test-colab PYTHON=python3.13 NOTEBOOKS=all
COLAB := build/colab-$(notdir $(PYTHON))
COLAB_TESTS := tests/test_colab.py tests/test_personal.py tests/test_widgets.py \
  tests/test_widgets_studio.py
NOTEBOOKS ?= 00_ or 06_ or 10_
test-colab:
	test -x $(COLAB)/bin/python || $(PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install --disable-pip-version-check \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r tests/colab.txt
	$(COLAB)/bin/python -m pip install --no-deps -e .
	$(COLAB)/bin/python -m pytest $(COLAB_TESTS)
	$(COLAB)/bin/python -m pytest -m slow tests/test_notebooks.py \
	  $(if $(filter all,$(NOTEBOOKS)),,-k "$(NOTEBOOKS)")

# torch goes first and alone: whichever build it is, the rest then takes it as it is.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit( \
	  'ivkit needs Python 3.11 to 3.13 and $(PYTHON) is %d.%d: make ... PYTHON=python3.12' % v)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) -e .
	@touch $@

$(INSTALLED_TEST): $(INSTALLED)
	$(PIP) -e ".[test,browser]"
	@touch $@

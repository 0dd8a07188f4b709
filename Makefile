# make demo       the quickstart notebook on recorded input -> outputs/demo/
# make test       the tests, a few minutes          make test-slow  every notebook and browser test
# make lab        JupyterLab at the quickstart      make pictures   the pictures in media/ anew
# make test-colab the widgets on Colab's versions   make screenshots  media/'s pages from a browser
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

.PHONY: demo test test-slow test-colab lab pictures screenshots
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/python -m ivkit demo

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks/00_quickstart.ipynb

test: $(INSTALLED_TEST)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(INSTALLED_TEST)
	$(BIN)/python -m pytest -m "slow or browser"

pictures: $(INSTALLED)
	$(BIN)/python -m ivkit.bench pictures

screenshots: $(INSTALLED_TEST)
	$(BIN)/python -m tests.browser.screenshots

# What Colab has where it differs from constraints.txt; no browser, no JupyterLab.
COLAB := build/colab
COLAB_HAS := ipywidgets==7.7.1 ipykernel==6.17.1 traitlets==5.7.1 ipycanvas==0.13.3 numpy==2.1.3 \
  diffusers==0.39.0 transformers==5.15.0
COLAB_TESTS := tests/test_colab.py tests/test_widgets.py tests/test_widgets_studio.py
test-colab:
	test -x $(COLAB)/bin/python || $(PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	  torch==2.13.0 $(COLAB_HAS) accelerate "imageio-ffmpeg<0.7" matplotlib mediapy nbclient nbformat \
	  opencv-python-headless peft Pillow safetensors tqdm hypothesis pytest
	$(COLAB)/bin/python -m pip install --no-deps -e .
	$(COLAB)/bin/python -m pytest $(COLAB_TESTS)
	$(COLAB)/bin/python -m pytest -m slow tests/test_notebooks.py -k "00_ or 08_"

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

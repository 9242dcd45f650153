# Everything starts here: `make help` lists what there is. Each target installs what it needs, and no more, into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# $(call need,EXTRAS): make the environment and the named extras of pyproject.toml ready; under a second when they are.
need    = @$(PYTHON) tools/bootstrap.py --venv $(VENV) $(1)

PROMPT ?= Once upon a time
TOKENS ?= 64
DEVICE ?= rtl
PRESET ?= pynq_z2

.DEFAULT_GOAL := help
.PHONY: help generate test test-boards test-synth check-fast lint verilog area bitstream route boards-table bench train eval clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

generate: ## write a story on the Verilated gateware (PROMPT, TOKENS, DEVICE=rtl|emulator)
	$(call need,cli hw sim)
	@$(BIN)/spikeloom generate "$(PROMPT)" --device $(DEVICE) --tokens $(TOKENS) --ignore-end

test: ## run all tests
	$(call need,cli hw sim model dev)
	$(BIN)/python -m pytest -q --durations=15 --junitxml=build/tests.xml tests

test-boards: ## test the board package with pynq 3.1 and 4.0 on a simulated board (ARGS)
	@$(PYTHON) tools/board_tests.py $(ARGS)

FAST := tests/arch tests/compiler tests/driver tests/gateware/lib tests/gateware/control $(wildcard tests/test_*.py)

check-fast: ## run the tests that take under a minute: contract, compiler, driver, control
	$(call need,cli hw sim model dev)
	$(BIN)/python -m pytest -q -m "not rtl and not slow" $(FAST)

lint: ## look for mistakes that need no run
	$(call need,dev)
	$(BIN)/ruff check .

verilog: ## write the Verilog of a preset to build/verilog (PRESET)
	$(call need,cli hw)
	@mkdir -p build/verilog
	$(BIN)/spikeloom verilog --preset $(PRESET) --output build/verilog/spikeloom_$(PRESET).v

# Yosys and what else a bitstream needs from PyPI, in an environment of its own.
TOOLCHAIN ?= vivado
PRESETS   ?= pynq_z2
SYNTH     := build/synth-venv
need_synth = @$(PYTHON) tools/bootstrap.py --venv $(SYNTH) $(1)

area: ## count what presets take on an FPGA, by Yosys, into results/area.json (PRESETS)
	$(call need_synth,hw synth)
	$(SYNTH)/bin/python -m spikeloom_hw.boards.area $(PRESETS) $(ARGS)
	@$(SYNTH)/bin/python -m spikeloom_hw.boards.status

bitstream: ## build for a board (BOARD=pynq_z1|pynq_z2|kv260|ulx3s, TOOLCHAIN=vivado|openxc7)
	@test -n "$(BOARD)" || { echo "Say which board: make bitstream BOARD=pynq_z1, pynq_z2, kv260 or ulx3s"; exit 2; }
	$(call need_synth,hw synth$(if $(filter ulx3s,$(BOARD)), uart ecp5))
	@$(SYNTH)/bin/python -m spikeloom_hw.boards.build $(BOARD) --toolchain $(TOOLCHAIN) $(ARGS); code=$$?; \
		$(SYNTH)/bin/python -m spikeloom_hw.boards.status; exit $$code

route: ## place and route the core for an ECP5-85F, its clock into results/route.json (ARGS)
	$(call need_synth,hw synth ecp5)
	@$(SYNTH)/bin/python -m spikeloom_hw.boards.ulx3s_route $(ARGS)

test-synth: ## test the netlists that Yosys makes for the open flow
	$(call need_synth,hw synth)
	$(SYNTH)/bin/python -m pytest -q tests/gateware/boards/test_openxc7.py

boards-table: ## write bitstreams/README.md from what the runs left, and say what is stale
	$(call need_synth,hw synth)
	@$(SYNTH)/bin/python -m spikeloom_hw.boards.fresh || test $$? -eq 4
	@$(SYNTH)/bin/python -m spikeloom_hw.boards.status

bench: ## measure every figure of speed into results/bench.json and docs/performance.md (ARGS)
	$(call need,cli hw sim model dev)
	$(BIN)/spikeloom bench $(ARGS)

train: ## train the stories model (ARGS="--run FOLDER --minutes N")
	$(call need,cli model)
	$(BIN)/spikeloom train $(ARGS)

eval: ## measure a trained model's perplexity on the texts of SPIKELOOM_DATA (ARGS)
	$(call need,cli model)
	$(BIN)/spikeloom eval $(ARGS)

clean: ## remove what was built here (the simulators under ~/.cache/spikeloom stay)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

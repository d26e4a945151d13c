# Two commands do everything: `make quickstart` and `make test`. PYTHON chooses the interpreter of the environment;
# TORCH=cpu, TORCH=cuda or TORCH_INDEX=URL the build of PyTorch, which scripts/install.py otherwise chooses by the machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# a worker per processor, each with one thread and whole files, notebooks first since they take longest; PARALLEL= runs one after the other
PARALLEL ?= -n logical --dist loadfile --no-loadscope-reorder

.PHONY: help install quickstart lab test lint bench results notebooks stamp student solutions book clean

help:
	@echo "make quickstart   environment, synthetic films, MedBridge, AUC table, runs/quickstart/report.html"
	@echo "make lab          open the course in JupyterLab"
	@echo "make test         environment, ruff, pytest and every notebook by pytest --nbval"
	@echo "make bench        the ablation of docs/results.md with today's form; hours, resumes"
	@echo "make results      comparisons on synthetic hospitals, and with FILMS=FOLDER EXPERT=NAME on your films; hours, resumes"
	@echo "make notebooks    write the notebooks again from their sources and run them"
	@echo "make stamp        after a change of prose or of the repository's address: write the notebooks, keep their outputs"
	@echo "make student      build/student: the course without solutions and outputs"
	@echo "make solutions    build/solutions: the course with both"
	@echo "make book         build/book: the course as a static site that needs no network"

install: $(STAMP)

# constraints.txt names the releases that the stored outputs were made with; pyproject.toml says what else works
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python scripts/install.py --torch "$(TORCH)" --torch-index "$(TORCH_INDEX)"
	@touch $(STAMP)

quickstart: install
	@echo "MedBridge starts: loading PyTorch takes some seconds"
	$(BIN)/medbridge quickstart

lab: install
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

test: export OMP_NUM_THREADS ?= 1
test: install
	$(BIN)/ruff check .
	$(BIN)/python -m pytest $(PARALLEL) --nbval notebooks tests

lint: install
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/medbridge ablate --benchmark phantom --option n_films=3600 --label-fraction 0.25 --epochs 12 --seeds 2 \
		--expert tiny-resnet --expert tiny-resnet-scenes

# every cell of a comparison is kept, so that the same command goes on where it stopped
SEEDS ?= 3
RESULTS := --seeds $(SEEDS) --overlap 0 --extra 2
PHANTOM := --test phantom-A --test phantom-B --test phantom-C --option n_films=480 --expert tiny-resnet --expert tiny-resnet-scenes \
	$(foreach method,zero-shot linear-probe k-NN CoOp CLIP-Adapter Tip-Adapter Tip-Adapter-F MedBridge,--method $(method))
results: install
	for source in A B C; do $(BIN)/medbridge leaderboard --train phantom-$$source $(PHANTOM) $(RESULTS) \
		--out runs/results/phantom-$$source || exit 1; done
	test -z "$(FILMS)" || $(BIN)/medbridge leaderboard --benchmark folder --root "$(FILMS)" --expert "$(EXPERT)" --folds 5 $(RESULTS) \
		--method linear-probe --method k-NN --method MedBridge --out runs/results/$(notdir $(FILMS))

notebooks: install
	$(BIN)/python scripts/build_notebooks.py

stamp: install
	$(BIN)/python scripts/build_notebooks.py --stamp

student solutions: install
	$(BIN)/python scripts/course_copy.py $@

book: install
	$(BIN)/python scripts/build_book.py

clean:
	rm -rf $(VENV) runs build dist

"""The documentation: a page for everything, no dead link or anchor, commands that exist, examples that run."""

import re
import shlex
from pathlib import Path

import pytest

import vesu
from vesu.cli import parser

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FIXED_MODULES = {
    "volume",
    "offline",
    "ledger",
    "data",
    "distill",
    "report",
    "errors",
    "run.checkpoint",
    "grid_search",
    "segmentation",
}


def names(text: str) -> list[str]:
    return text.split()


WRITTEN = names("""
DISTILLATION_START DISTILLATION_TEACHER_LOAD_BEGIN DISTILLATION_TEACHER_LOAD_END DISTILLATION_BATCH_BEGIN
DISTILLATION_BATCH_END DISTILLATION_LOSS_STEP DISTILLATION_STUDENT_UPDATE DISTILLATION_CHECKPOINT_WRITTEN
DISTILLATION_END DISTILLATION_NOT_EXECUTED_HARD_FAIL TEACHER_DISTILLATION_START TEACHER_BATCH_TRANSFER
TEACHER_DISTILLATION_DONE TRANSFER_MEMORY_PERSISTED TRANSFER_MEMORY_RELOADED_FOR_FINETUNE GPU_PHASE_START GPU_PHASE_END
GPU_MEMORY_SNAPSHOT GPU_FALLBACK_DETECTED TIME_BUDGET_STATE RUNTIME_BUDGET_HEARTBEAT RUNTIME_ACCELERATION_MODE_ON
RUNTIME_BUDGET_FINAL PROGRESS_UPDATE GLOBAL_PROGRESS_REALTIME TRAIN_CURSOR PHASE_WEIGHT_CALIBRATION
PROGRESS_INTEGRITY_ALERT HEARTBEAT PRETIMEOUT_FLUSH LATEST_VALID_CKPT RESUME_EXACT_OK RESUME_OK RESUME_INCOMPATIBLE
TRAIN_COVERAGE_PLAN TRAIN_COVERAGE_PROGRESS TRAIN_COVERAGE_FINAL TEST_GUIDED_ULTRA_FINETUNE_WITH_COMPETITOR_TIFF
COMPETITOR_TIFF_LOAD_OK COMPETITOR_GUIDED_PHASE_START COMPETITOR_GUIDED_PHASE_DONE COMPETITOR_ALIGNMENT_DELTA
AUTO_TUNE_PARAM_UPDATE AUTO_TUNE_POLICY_DECISION
CONVERGENCE_PATIENCE_EXPANDED GOLDEN_NONCE_FOUND GOLDEN_NONCE_TOPK_FINAL
""")
"""The history's event names that today's vesu writes (and the one that begins an error's message)."""

OTHER_NAMES = names("""
meta_neurons supervised_epochs mutation_noise convergence_patience dust_min_size teacher_ensemble_infer
train_student_distilled threshold_quantile score_blend_3d_weight z_smoothing_radius ink_ratio_global ink_ratio_by_slice
merkle_prev merkle_curr global_progress_reel train_progress_reel elapsed_total_h runtime_margin_to_9h
acceleration_actions_applied teacher_coverage_pct teacher_alignment_gain_before_after student_knowledge_retention_score
gpu_phase_coverage_pct gpu_time_ratio cpu_fallback_count train_pair_coverage_pct_effective coverage_gap_reason
coverage_gap_is_justified ckpt_manifest.json results.zip RUN_PROFILE_SUMMARY.json v3_train_coverage_report.json
v3_transfer_memory_manifest.json v3_teacher_alignment_report.json v3_golden_nonce_timeline.jsonl
v3_competitor_guided_delta.json v3_autotune_trace.json go_no_go.json NX46_THRESHOLD_QUANTILE
NX46_SCORE_BLEND_3D_WEIGHT NX46_Z_SMOOTHING_RADIUS NX46_RUN_TAG NX46_DRY_RUN V1442_META_NEURONS V1442_MAX_ITER
V1442_SUPERVISED_EPOCHS V1442_USE_UNET_25D V1442_MAX_TRAIN_VOLUMES V1442_MAX_VAL_VOLUMES V1442_HEARTBEAT_INTERVAL_S
V138_MAX_TRAIN_VOLUMES V138_MAX_VAL_VOLUMES
""")
PROSE = [
    "golden nonce",
    "meta-neuron",
    "prox-fit",
    "pseudo-spectral",
    "NX46",
    "NX47",
    "V2",
    "V3",
    "v136",
    "P1, P2, P3",
    "135",
]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """Markdown without its fenced blocks: a link or heading in there is none."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ +(.+?) *$", without_code(text_of(path)), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text_of(path), re.DOTALL | re.MULTILINE)


def listed_in_the_tree() -> list[Path]:
    """Pages that the site's navigation names, from every toctree."""
    found = []
    for page in PAGES:
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            found += [(page.parent / f"{name}.md").resolve() for name in names]
    return found


def test_every_page_stands_once_in_the_sites_tree() -> None:
    listed = listed_in_the_tree()
    assert len(listed) == len(set(listed)), "a page stands in two toctrees"
    missing = {page.relative_to(DOCS) for page in set(PAGES) - set(listed) - {DOCS / "index.md"}}
    assert not missing, f"add them to a toctree in docs/index.md: {sorted(map(str, missing))}"
    assert not {page for page in listed if not page.exists()}, "a toctree names a page that is not there"


@pytest.mark.parametrize("path", [*GUIDES, *sorted((DOCS / "api").glob("*.md"))], ids=lambda path: path.name)
def test_links_and_anchors_hold(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)", without_code(text_of(path))):
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{path.name}: {target}; accepted: {sorted(anchors(there))}"


def test_the_glossary_knows_every_historical_name() -> None:  # R22-R44
    glossary = text_of(DOCS / "glossary.md")
    code = set(re.findall(r"`([^`]+)`", glossary))
    assert not {*WRITTEN, *OTHER_NAMES} - code
    assert not [name for name in PROSE if name not in glossary]


def test_the_glossary_names_no_event_that_nothing_writes() -> None:  # R54
    glossary = text_of(DOCS / "glossary.md")
    sources = "\n".join(text_of(path) for path in (ROOT / "python" / "vesu").rglob("*.py"))
    assert not [name for name in WRITTEN if name not in sources or f"`{name}`" not in glossary]


def test_the_api_lists_every_public_name() -> None:
    objects = text_of(DOCS / "api" / "vesu.md")
    summary = text_of(DOCS / "api" / "index.md")
    everything = "\n".join(text_of(page) for page in (DOCS / "api").glob("*.md"))
    modules = set(re.findall(r"automodule:: vesu\.([\w.]+)", everything))
    for name in vesu.__all__:
        if name == "__version__":
            assert "`vesu.__version__`" in summary
        elif name in vesu._MODULES:
            assert name in modules, f"no automodule of vesu.{name} in docs/api"
        else:
            assert re.search(rf"auto\w+:: vesu\.{name}$", objects, re.MULTILINE), name
            assert re.search(rf"^   {name}$", summary, re.MULTILINE), name
    assert modules >= FIXED_MODULES


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_commands_in_the_guides_exist(path: Path) -> None:
    for line in "".join(blocks(path, "sh") + blocks(path, "")).splitlines():
        command = line.split("#")[0].split(">")[0].split(";")[0].strip()
        if command.startswith("vesu ") and not re.search(r"[|\[]", command):
            try:
                parser().parse_args(shlex.split(re.sub(r"\b[KN]\b", "1", command))[1:])  # they stand for a number
            except SystemExit as refused:
                if refused.code:  # 0: --version
                    pytest.fail(f"{path.name}: `{command}` is refused")


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the first run's example ran: `scroll` is its data, `run` what it left."""
    folder = tmp_path_factory.mktemp("first")
    (example,) = blocks(DOCS / "first_run.md", "python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(example, "first_run.md", "exec"), {})
    return folder


def test_the_checks_of_a_run_hold(first_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R38
    monkeypatch.chdir(first_run)
    examples = blocks(DOCS / "verify_a_run.md", "python")
    assert len(examples) == 3
    for example in examples:
        exec(compile(example, "verify_a_run.md", "exec"), {})


def test_kaggles_short_way_gives_the_runs_zip(
    first_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R05
    monkeypatch.setenv("VESU_DATA_ROOT", str(first_run / "scroll"))
    example = blocks(DOCS / "kaggle.md", "python")[-1]
    for kaggle, here in {"/kaggle/input/my-run": first_run / "run", "/kaggle/working": tmp_path}.items():
        assert kaggle in example
        example = example.replace(kaggle, str(here))
    exec(compile(example, "kaggle.md", "exec"), {})
    assert (tmp_path / "submission.zip").read_bytes() == (first_run / "run" / "submission.zip").read_bytes()

"""Ablations on a data set: judged volumes choose nothing, every score is that of a run, cut studies go on."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from student_case import STUDENT, without_report, write_teachers
from vesu.ablation import ScoreFile
from vesu.cli import main
from vesu.data.phantom import write_dataset
from vesu.data.storage import remove_tree_atomic
from vesu.errors import ArgumentError, DataError, ResumeIncompatible
from vesu.features import FAMILIES
from vesu.ledger import verify
from vesu.report.student import read_ablation
from vesu.run.ablations import GROUPS, AblationReport, ablate_features, ablate_steps, ablate_teachers
from vesu.run.ablations.features import FAMILY_GROUPS
from vesu.run.ablations.searching import SeedWork
from vesu.run.ablations.study import opened
from vesu.segmentation import Dust, SegmentConfig, SmoothZ, Threshold

SETTINGS = [
    "sampling.voxels_per_volume=300",
    "segment.steps=smooth_z, threshold, dust",
    "segment.dust.min_voxels=30",
    "features.scales=[1,2]",
    "n_threads=1",
]
"""Fewer voxels and channels; the grid and its iterations stay whole (R50)."""

TWO = {"grey": ("intensity", "variance", "bandpass"), "shape": ("gradient", "z_contrast", "hessian", "sheetness")}
"""Two groups; the families in neither always stay."""


def config(*more: str) -> vesu.RunConfig:
    return vesu.load_config(overrides=[*SETTINGS, *more], environment={})


@pytest.fixture(scope="module")
def scrolls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("ablate") / "set", n_train=5, n_test=1, shape=(24, 32, 32), seed=5)


@pytest.fixture(scope="module")
def features(scrolls: Path, tmp_path_factory: pytest.TempPathFactory) -> AblationReport:
    out = tmp_path_factory.mktemp("features")
    return ablate_features(scrolls, out, seeds=(0, 1), config=config(), judged=2, groups=TWO)


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    """Those of a name; lines that do not have it are not parsed, for there are thousands of iterations."""
    lines = (folder / "events.jsonl").read_bytes().splitlines()
    found = [json.loads(line) for line in lines if name.encode() in line]
    return [event for event in found if event["event"] == name]


def count(folder: Path, name: str) -> int:
    return len(events(folder, name))


def test_the_groups_are_the_families_and_no_other() -> None:  # R07
    families = [family for group in GROUPS.values() for family in group]
    assert sorted(families) == sorted(FAMILIES) == sorted(FAMILY_GROUPS)


def test_every_search_is_whole_and_in_the_log(features: AblationReport) -> None:  # R10, R50, R51
    searches = events(features.folder, "ABLATION_SEARCH_START")
    assert len(searches) == count(features.folder, "ABLATION_SEARCH_DONE") == 6
    assert all(search["candidates"] == [135] and search["max_iter"] == 120 for search in searches)
    lines = (features.folder / "events.jsonl").read_bytes()
    assert lines.count(b'"event":"TRAIN_ITERATION"') == 6 * 135 * 120
    checked = verify(features.folder / "events.jsonl")
    assert features.facts["ledger"] == {"entries": checked.entries, "root": checked.root}


def test_judged_volumes_choose_nothing(features: AblationReport, scrolls: Path) -> None:  # R10
    judged = set(features.facts["judged"])
    assert len(judged) == 2
    for search in events(features.folder, "ABLATION_SEARCH_START"):
        assert not judged & {*search["train"], *search["validation"]}
        assert len({*search["train"], *search["validation"]}) == 3
    assert all(set(row.gain.volumes) == judged for row in features.table.rows)
    assert judged < {pair.volume_id for pair in vesu.discover(scrolls).pairs}


def test_a_group_that_is_left_out_is_not_searched_with(features: AblationReport) -> None:  # R10
    for search in events(features.folder, "ABLATION_SEARCH_START"):
        found = {name.rpartition("_s")[0] for name in search["features"]}
        assert found and not found & {family for name in search["left_out"] for family in TWO[name]}
    left_out = [search["left_out"] for search in events(features.folder, "ABLATION_SEARCH_START")]
    assert left_out == [[], ["grey"], ["shape"]] * 2


def test_the_full_score_is_that_of_a_run(
    features: AblationReport, scrolls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R10, R45
    """A run on the volumes that learn and choose, whose test volumes are the judged ones, scores the same."""
    without_report(monkeypatch)
    judged = features.facts["judged"]
    for name in ("train_images", "train_labels"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for volume_id in features.facts["learning"]:
            (tmp_path / "set" / name / f"{volume_id}.tif").symlink_to(scrolls / name / f"{volume_id}.tif")
    (tmp_path / "set" / "test_images").mkdir()
    for volume_id in judged:
        source = scrolls / "train_images" / f"{volume_id}.tif"
        (tmp_path / "set" / "test_images" / f"{volume_id}.tif").symlink_to(source)
    result = vesu.run(tmp_path / "set", tmp_path / "run", config=replace(config(), seed=1), display="none")
    masks = {name: vesu.read_volume(result.folder / "masks" / f"{name}.tif") for name in judged}
    labels = {name: vesu.read_volume(scrolls / "train_labels" / f"{name}.tif") for name in judged}
    found = json.loads((features.folder / "scores.json").read_bytes())["scores"]
    (mine,) = [each["score"] for each in found if each["seed"] == 1 and len(each["feature_groups"]) == 2]
    assert mine == {name: vesu.score(masks[name], labels[name]).score for name in judged}


def test_held_features_and_slabs_give_the_same_bits(scrolls: Path, tmp_path: Path) -> None:  # R09, R53
    with opened("feature_group", scrolls, tmp_path / "out", config(), "score", 2, depends_on={}) as study:
        work = SeedWork(study, 0)
        searched = work.search(["intensity", "hessian"])
        model = searched.model()
        held = searched.answer(model, study.judged[0])
        assert list(work.features) == [study.judged[0].volume_id]
        work.features.clear()
        work.config = replace(work.config, max_feature_gib=0.0004)
        slabs = searched.answer(model, study.judged[0])
        assert not work.features
    np.testing.assert_array_equal(held.probability, slabs.probability)
    np.testing.assert_array_equal(held.uncertainty, slabs.uncertainty)


def test_the_objective_is_the_winners_on_judged_voxels(scrolls: Path, tmp_path: Path) -> None:  # R10, R13
    with opened("feature_group", scrolls, tmp_path / "out", config(), "objective", 2, depends_on={}) as study:
        work = SeedWork(study, 0)
        searched = work.search(FAMILIES)
        found = searched.objectives()
        assert set(found) == {pair.volume_id for pair in study.judged}
        ranked = replace(work.config.search, ranking="score", ensemble_size=2, ranking_pool=2)
        work.config = replace(work.config, search=ranked)  # the ensemble by the masks' scores, as a run takes it (R45)
        assert set(searched.model().prox.candidates) == set(searched.grid.leaderboard_["candidate"][:2].tolist())
        grid, channels = searched.grid, list(searched.data.channels)
        for pair in study.judged:
            rows = work.rows(pair)
            model = grid.model(order=[grid.best_index_], feature_names=searched.data.names)
            mean, _ = model.predict_proba(rows.x[:, channels], rows.g[:, channels])
            p, y = np.clip(mean.astype(np.float64), 1e-12, 1 - 1e-12), rows.y == 1
            entropy = -np.mean(np.where(y, np.log(p), np.log(1 - p)))
            gains = []
            for threshold in np.arange(0.35, 0.601, 0.01):
                hit = mean >= threshold
                tp, fp, fn = (hit & y).sum(), (hit & ~y).sum(), (~hit & y).sum()
                f1, f_beta = 2 * tp / (2 * tp + fp + fn), 1.25 * tp / (1.25 * tp + fp + 0.25 * fn)
                gains.append(0.2 * f1 + 0.15 * f_beta + 0.1 * tp / (tp + fp + fn))
            zero = grid.coef_[grid.best_index_] == 0
            objective = entropy + 0.02 * (1 - zero.mean()) - max(gains)
            assert found[pair.volume_id] == pytest.approx(-objective, abs=2e-3)


def test_what_is_left_says_everything(features: AblationReport) -> None:  # R10, R54
    document = json.loads((features.folder / "ablation.json").read_bytes())
    assert document["table"] == features.table.to_json() and document["measure"] == "score"
    assert document["scores"] == json.loads((features.folder / "scores.json").read_bytes())["scores"]
    assert len(document["scores"]) == 6
    markdown = (features.folder / "ablation.md").read_text()
    assert features.table.to_markdown() in markdown and "2 volumes that chose nothing" in markdown
    assert "2 seeds" in markdown and {row.verdict for row in features.table.rows} == {"neutral"}
    assert "What each feature group is worth" in (features.folder / "ablation.html").read_text()


def test_scores_of_other_settings_are_refused(scrolls: Path, tmp_path: Path) -> None:  # R37
    """The context names everything that a score depends on, and nothing else."""

    def context(few: vesu.RunConfig, kind: str = "feature_group", judged: Any = 2, **other: Any) -> str:
        measure = other.pop("measure", "score")
        with opened(kind, scrolls, tmp_path / "out", few, measure, judged, depends_on=other) as study:
            return study.context

    here = context(config())
    same = [config("n_threads=2"), config("cache_gib=1.0"), config("time.heartbeat_s=3.0"), config("student.steps=7")]
    assert {context(other) for other in same} == {here}
    others = [
        context(config("search.l1=[1e-4,3e-4,1e-3,3e-3,1e-2,3e-2]")),
        context(config("sampling.voxels_per_volume=301")),
        context(config("segment.dust.min_voxels=31")),
        context(config("seed=1")),
        context(config(), kind="ladder_step"),
        context(config(), judged=1),
        context(config(), measure="objective"),
        context(config(), groups="other"),
    ]
    assert len({here, *others}) == 1 + len(others)
    ScoreFile(tmp_path / "out" / "scores.json", "feature_group", here).add(("grey", "shape"), 0, 0.5)
    with pytest.raises(ResumeIncompatible, match="field context"):
        ablate_features(scrolls, tmp_path / "out", config=config("sampling.voxels_per_volume=301"), groups=TWO)
    assert count(tmp_path / "out", "ABLATION_STUDY_FAILED") == 1


@pytest.fixture(scope="module")
def steps(scrolls: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AblationReport]:
    out = tmp_path_factory.mktemp("steps")
    yield ablate_steps(scrolls, out, seeds=(0, 1), config=config("segment.calibration.fit=false"), judged=2)


def test_steps_share_one_search_a_seed(steps: AblationReport, scrolls: Path) -> None:  # R10, R29
    assert [row.name for row in steps.table.rows] == ["smooth_z", "dust"]
    assert [event["seed"] for event in events(steps.folder, "ABLATION_SEARCH_START")] == [0, 1]
    (steps.folder / "scores.json").unlink()  # the probabilities are in the cache
    settings = config("segment.calibration.fit=false")
    again = ablate_steps(scrolls, steps.folder, seeds=(0, 1), config=settings, judged=2)
    assert again.table == steps.table and count(steps.folder, "ABLATION_SEARCH_START") == 2


def test_a_cut_study_goes_on(steps: AblationReport, scrolls: Path, tmp_path: Path) -> None:  # R10, R37
    how: dict[str, Any] = {"seeds": (0, 1), "config": config("segment.calibration.fit=false"), "judged": 2}

    def cut(done: int, total: int, fields: Any) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate_steps(scrolls, tmp_path / "out", on_score=cut, **how)
    assert not (tmp_path / "out" / "ablation.json").exists()
    again = ablate_steps(scrolls, tmp_path / "out", **how)
    assert again.table == steps.table
    assert count(again.folder, "ABLATION_SEARCH_START") == 2
    assert (count(again.folder, "ABLATION_STUDY_START"), count(again.folder, "ABLATION_STUDY_RESUMED")) == (1, 1)
    assert [event["scores_to_come"] for event in events(again.folder, "LADDER_STEP_ABLATION_START")] == [6, 2]
    verify(again.folder / "events.jsonl")


def test_a_step_that_is_left_out_is_not_taken(steps: AblationReport, scrolls: Path) -> None:  # R10, R29
    """With a rule that is not fitted the score is that of the shorter ladder on the same probability."""
    settings = config("segment.calibration.fit=false")
    with opened("ladder_step", scrolls, steps.folder, settings, "score", 2, depends_on={}) as study:
        searched = SeedWork(study, 0).search(FAMILIES)
        pair = study.judged[0]
        answer, label = searched.answer(searched.model(), pair), study.label(pair)
    rule = settings.segment.ladder.threshold.rule
    ladders = {
        ("smooth_z", "dust"): (SmoothZ(), Threshold(rule), Dust(30)),
        ("dust",): (Threshold(rule), Dust(30)),
        ("smooth_z",): (SmoothZ(), Threshold(rule)),
    }
    found = json.loads((steps.folder / "scores.json").read_bytes())["scores"]
    for kept, ladder in ladders.items():
        mask = vesu.segment(answer.probability, SegmentConfig(ladder)).mask
        (mine,) = [each["score"] for each in found if each["seed"] == 0 and tuple(each["ladder_steps"]) == kept]
        assert mine[pair.volume_id] == vesu.score(mask, label).score, kept


def test_teachers_teach_students_of_the_data_set(tmp_path: Path) -> None:  # R10, R21, R22
    data = write_dataset(tmp_path / "set", n_train=4, n_test=1, shape=(16, 24, 24), seed=5)
    where = f"teachers.folder='{write_teachers(tmp_path / 'teachers')}'"
    quick = ["student.steps=2", "student.validate_every=2", "student.skeleton_weight=0.0", "student.patch=[8,8,8]"]
    taught = config(*STUDENT, *quick, where)
    report = ablate_teachers(data, tmp_path / "out", seeds=(0, 1), config=taught, judged=2, measure="objective")
    assert [row.name for row in report.table.rows] == ["teacher-0", "teacher-1"]
    students = events(report.folder, "ABLATION_STUDENT_START")
    assert [each["teachers"] for each in students[:3]] == [["teacher-0", "teacher-1"], ["teacher-1"], ["teacher-0"]]
    assert count(report.folder, "DISTILLATION_END") == len(students) == 6
    assert len({each["weights_digest"] for each in events(report.folder, "ABLATION_STUDENT_DONE")}) == 6
    worth = read_ablation(report.folder / "v3_teacher_ablation.json")
    assert [each.teacher for each in worth] == ["teacher-0", "teacher-1"]
    assert [each.mean for each in worth] == [row.gain.mean for row in report.table.rows]
    for row in report.table.rows:
        assert set(row.gain.volumes) == set(report.facts["judged"])


# ---- the command line, and bad input


def test_the_command_leaves_a_table(
    scrolls: Path, steps: AblationReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # R10
    words = ["--seeds", "2", "--judged", "2", "--set", "segment.calibration.fit=false"]
    words += ["--cache", str(steps.folder / "cache")]  # where the probabilities are
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    assert main(["ablate", "steps", str(scrolls), "--out", str(tmp_path / "out"), *words]) == 0
    said = capsys.readouterr().out
    assert count(tmp_path / "out", "ABLATION_SEARCH_START") == 0
    assert "6/6  seed 1, without dust: " in said and steps.table.to_markdown() in said
    ids = ",".join(steps.facts["judged"])
    again = [*words, "--judged", ids, "--quiet"]  # the same volumes by name
    assert main(["ablate", "steps", str(scrolls), "--out", str(tmp_path / "out"), *again]) == 0
    assert capsys.readouterr().out.startswith("# What each ladder step is worth")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"judged": 4}, "judged: got 4; accepted: 1 to 3 of 5"),
        ({"judged": 0}, "judged: got 0"),
        ({"judged": ["none such"]}, "judged: got .*accepted: labelled ids"),
        ({"judged": "abc"}, "judged: got 'abc'"),
        ({"measure": "luck"}, "measure: got 'luck'"),
        ({"seeds": (0, 0)}, "seeds: got"),
        ({"seeds": (0,)}, "seeds: got"),
        ({"groups": {"a": ["intensity"]}}, "groups: got"),
        ({"groups": {"a": ["intensity"], "b": ["colour"]}}, "groups: got .*accepted: .*variance"),
        ({"groups": {"a": ["intensity"], "b": ["intensity"]}}, "groups: got"),
        ({"groups": {"a": ["intensity"], "b": []}}, "groups: got"),
        ({"config": replace(vesu.RunConfig(), pipeline="nx46")}, "pipeline: got 'nx46'"),
    ],
)
def test_what_cannot_be_ablated_is_refused(how: dict[str, Any], said: str, scrolls: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=said):
        ablate_features(scrolls, tmp_path / "out", **{"config": config(), **how})
    assert not (tmp_path / "out" / "scores.json").exists()


def test_other_bad_input_is_refused(scrolls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArgumentError, match=r"segment\.steps: got the threshold alone"):
        ablate_steps(scrolls, tmp_path / "a", config=config("segment.steps=threshold"))
    with pytest.raises(ArgumentError, match=r"teachers: got 0 \(no folder"):
        ablate_teachers(scrolls, tmp_path / "b", config=config())
    one = f"teachers.folder='{write_teachers(tmp_path / 'teachers', 1)}'"
    with pytest.raises(ArgumentError, match="teachers: got 1 "):
        ablate_teachers(scrolls, tmp_path / "b", config=config(one))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "events.jsonl").write_text("somebody's")
    with pytest.raises(DataError, match=r"holds events\.jsonl that no ablation wrote"):
        ablate_features(scrolls, foreign, config=config(), restart=True)
    assert (foreign / "events.jsonl").read_text() == "somebody's"
    assert main(["ablate", "features", str(scrolls), "--out", str(tmp_path / "c"), "--seeds", "1"]) == 2
    assert "--seeds: got 1" in capsys.readouterr().err
    few = write_dataset(tmp_path / "few", n_train=2, n_test=1, shape=(16, 16, 16), seed=5)
    with pytest.raises(DataError, match="labelled pairs: got 2"):
        ablate_features(few, tmp_path / "d", config=config())
    remove_tree_atomic(foreign)

"""Files of other trainers' evolutions, as these write them, and what is left of them when they are torn."""

import json
from pathlib import Path

import pytest

from search_spaces import SpaceError, dump_hyp, load_space
from studies import StudyError
from studies.earlier import read_earlier

YOLOV5 = load_space("yolov5").defaults()  # iou_t included, copy_paste last
YOLOV5_V5 = {name: value for name, value in YOLOV5.items() if name != "copy_paste"}
YOLOV3 = load_space("yolov3").defaults()
WARP = ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear")
YOLOV5_V1 = {name: YOLOV5[name] for name in ("lr0", "momentum", "weight_decay")} | {
    "giou": 0.05,
    **{name: YOLOV5[name] for name in ("cls", "cls_pw", "obj", "obj_pw", "iou_t", "anchor_t", "fl_gamma", *WARP)},
}
YOLOV5_V3 = YOLOV5_V1 | {name: YOLOV5[name] for name in ("perspective", "flipud", "fliplr", "mixup")}
YOLOV7 = YOLOV5 | {"paste_in": 0.15}


def with_anchors(hyp, value=3.63):
    """Where YOLOv5's hyp files have them when they are no comment."""
    items = list(hyp.items())
    place = list(hyp).index("anchor_t") + 1
    return dict([*items[:place], ("anchors", value), *items[place:]])


def txt_line(hyp, results=(0.6, 0.5, 0.4, 0.2, 0.03, 0.02, 0.01)):
    """YOLOv3 archive, utils/utils.py print_mutation; YOLOv5 up to v5.0 and YOLOv7 alike."""
    return ("%10.3g" * len(results)) % tuple(results) + ("%11.3g" * len(hyp)) % tuple(hyp.values()) + "\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


LAYOUTS = {
    "YOLOv3": YOLOV3,
    "YOLOv5 v1": YOLOV5_V1,
    "YOLOv5 v3": YOLOV5_V3,
    "YOLOv5 v5": YOLOV5_V5,
    "YOLOv5 v5, anchors": with_anchors(YOLOV5_V5),
    "YOLOv5 v5, anchors added": YOLOV5_V5 | {"anchors": 3.0},
    "YOLOv5 after v5": YOLOV5,
    "YOLOv5 after v5, anchors added": YOLOV5 | {"anchors": 3.0},
    "YOLOv7, early": YOLOV7,
    "YOLOv7, early, anchors added": YOLOV7 | {"anchors": 3.0},
    "YOLOv7": YOLOV7 | {"loss_ota": 1.0},
    "YOLOv7, anchors added": YOLOV7 | {"loss_ota": 0.7, "anchors": 3.0},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_evolve_txt_has_no_header_and_is_known_by_how_much_stands_in_it(tmp_path, layout):
    hyp = LAYOUTS[layout]
    found, unread = read_earlier(write(tmp_path, "evolve.txt", txt_line(hyp) + txt_line(hyp | {"lr0": 0.003})))
    assert [result.hyp for result in found] == [pytest.approx(hyp), pytest.approx(hyp | {"lr0": 0.003})]
    assert list(found[0].hyp) == list(hyp)
    assert unread == 0
    assert found[1].label == "evolve.txt, result 2"


def test_fitness_is_what_the_trainer_that_wrote_the_line_went_by(tmp_path):
    yolov3, yolov5 = (write(tmp_path, f"{i}.txt", txt_line(hyp)) for i, hyp in enumerate((YOLOV3, YOLOV5_V5)))
    assert read_earlier(yolov3)[0][0].fitness == pytest.approx(0.01 * 0.5 + 0.99 * 0.4)
    assert read_earlier(yolov5)[0][0].fitness == pytest.approx(0.1 * 0.4 + 0.9 * 0.2)


def test_a_hyp_txt_of_yolov3_is_one_hyp(tmp_path):
    """One value a line, as its train.py reads hyp*.txt."""
    found, _ = read_earlier(write(tmp_path, "hyp.txt", "# evolved\n" + "".join(f"{v}\n" for v in YOLOV3.values())))
    assert [(result.hyp, result.fitness) for result in found] == [(YOLOV3, None)]


def csv_of(rows, names=tuple(YOLOV5), boxes=""):
    """YOLOv5 v6.1, utils/general.py print_mutation: 20 characters a column."""
    metrics = ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")
    keys = [*(f"metrics/{name}{boxes}" for name in metrics), "val/box_loss", "val/obj_loss", "val/cls_loss", *names]
    lines = [("%20s," * len(keys) % tuple(keys)).rstrip(",")]
    lines += [("%20.5g," * len(row) % tuple(row)).rstrip(",") for row in rows]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("boxes", ["", "(B)"])
def test_an_evolve_csv_of_yolov5_is_read_by_its_header(tmp_path, boxes):
    row = (0.6, 0.5, 0.4, 0.2, 0.03, 0.02, 0.01, *YOLOV5.values())
    (found,), unread = read_earlier(write(tmp_path, "evolve.csv", csv_of([row], boxes=boxes)))
    assert found.hyp == pytest.approx(YOLOV5)
    assert found.fitness == pytest.approx(0.1 * 0.4 + 0.9 * 0.2)
    assert unread == 0


def test_a_table_of_ours_gives_the_trials_that_completed(tmp_path):
    header = "trial,generation,state,fitness,epochs,precision,recall,map50,map50_95,seconds,parents,operator"
    rows = ["0,0,COMPLETE,0.4,10,0.5,0.5,0.5,0.39,7.1,,", "1,1,PRUNED,,2,0.1,0.1,0.1,0.1,1,0,normalised"]
    lines = [f"{header},lr0,optimizer,nesterov", f"{rows[0]},0.01,adam,True", f"{rows[1]},0.02,sgd,False"]
    found, unread = read_earlier(write(tmp_path, "evolve.csv", "\n".join(lines)))
    hyp = {"lr0": 0.01, "optimizer": "adam", "nesterov": True}
    assert [(result.hyp, result.fitness) for result in found] == [(hyp, 0.4)]
    assert unread == 0


def test_ultralytics_results_are_read_whether_they_are_lines_of_json_or_a_table(tmp_path):
    """ultralytics 8.4.190, engine/tuner.py; 8.3, `fitness` and the hyps."""
    hyp = load_space("ultralytics").defaults()
    record = {"iteration": 1, "fitness": 0.53365, "hyperparameters": hyp, "datasets": {"coco8": {"fitness": 0.5}}}
    lines = json.dumps(record) + "\n" + json.dumps({**record, "iteration": 2, "fitness": 0.0}) + "\n"
    found, unread = read_earlier(write(tmp_path, "tune_results.ndjson", lines))
    assert [(result.hyp, result.fitness) for result in found] == [(hyp, 0.53365)], "0 is a training that failed"
    assert unread == 0
    table = "fitness," + ",".join(hyp) + "\n0.53365," + ",".join(map(str, hyp.values())) + "\n"
    assert read_earlier(write(tmp_path, "tune_results.csv", table))[0][0].hyp == hyp


def test_a_hyp_file_is_one_hyp_that_nobody_scored(tmp_path):
    (found,), _ = read_earlier(write(tmp_path, "hyp.yaml", dump_hyp(YOLOV5, ["Best generation: 7"])))
    assert (found.hyp, found.fitness, found.label) == (YOLOV5, None, "hyp.yaml")


GOOD_TXT, GOOD_CSV = txt_line(YOLOV5_V5), csv_of([(0.6, 0.5, 0.4, 0.2, 0, 0, 0, *YOLOV5.values())])
GOOD_JSON = '{"fitness": 0.5, "hyperparameters": {"lr0": 0.01}}\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("evolve.txt", GOOD_TXT + GOOD_TXT[:90] + "\n"),
        ("evolve.txt", "P R mAP50 mAP50-95\n" + GOOD_TXT),
        ("evolve.txt", GOOD_TXT + GOOD_TXT.replace("0.937", "  nan")),
        ("evolve.txt", GOOD_TXT + "\0\0\0\n"),
        ("evolve.csv", GOOD_CSV + GOOD_CSV.splitlines()[1][:250]),
        ("evolve.csv", GOOD_CSV + GOOD_CSV.splitlines()[1].replace("0.4,", "nan,")),
        ("evolve.csv", GOOD_CSV + "\0\0\0\n"),
        ("tune_results.ndjson", GOOD_JSON + '{"fitness": 0.6, "hyperpar'),
        ("tune_results.ndjson", GOOD_JSON + "[]\n"),
        ("tune_results.ndjson", GOOD_JSON + '{"fitness": NaN, "hyperparameters": {"lr0": 0.01}}\n'),
        ("tune_results.ndjson", GOOD_JSON + '{"fitness": 0.5, "hyperparameters": {"lr0": [0.01]}}\n'),
        ("tune_results.ndjson", GOOD_JSON + '{"fitness": 1' + "0" * 400 + ', "hyperparameters": {"lr0": 0.01}}\n'),
        ("tune_results.ndjson", GOOD_JSON + "[" * 100_000 + "\n"),
    ],
)
def test_a_broken_line_is_counted_and_the_others_are_read(tmp_path, name, text):
    found, unread = read_earlier(write(tmp_path, name, text))
    assert (len(found), unread) == (1, 1)


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        (
            "evolve.txt",
            "",
            StudyError,
            "evolve.txt is no evolve.txt: expected 7 results and the 18, 22 or 27 to 31 hyps",
        ),
        ("evolve.txt", "1 2 3\n", StudyError, "got 3 numbers"),
        ("evolve.txt", txt_line(YOLOV5 | {f"mine{i}": 0 for i in range(5)}), StudyError, "got 40 numbers"),
        ("evolve.csv", "", StudyError, "is no table"),
        ("evolve.csv", "a,b\n1,2\n", StudyError, "it has no column 'fitness'"),
        (
            "evolve.csv",
            "fitness,lr0\n0,0.1\nnan,0.1\n",
            StudyError,
            "no training that succeeded: 2 lines, 1 unreadable",
        ),
        ("tune_results.ndjson", "{}\n", StudyError, "holds no training that succeeded: 1 lines, 1 unreadable"),
        ("hyp.yaml", "", SpaceError, "is empty"),
        ("best.pt", "", StudyError, "best.pt is none of the files that can be read"),
    ],
)
def test_a_file_that_gives_nothing_is_told_in_one_sentence(tmp_path, name, text, error, said):
    with pytest.raises(error) as raised:
        read_earlier(write(tmp_path, name, text))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)

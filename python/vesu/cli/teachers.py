"""Teachers: `vesu teacher list`, `check`, `convert`."""

from pathlib import Path

from vesu.cli.arguments import Arguments, Commands, command, group


def add(commands: Commands) -> None:
    """Declare the commands."""
    teacher = group(commands, "teacher", "frozen models to distil", "Work with frozen teachers.")
    listed = command(teacher, "list", _teacher_list, "list the teachers of a folder, and what is refused and why")
    listed.add_argument("folder", type=Path, help="folder of teachers, or one teacher")

    check = command(teacher, "check", _teacher_check, "load every teacher of a folder and let it answer once")
    check.add_argument("folder", type=Path, help="folder of teachers, or one teacher")
    check.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")

    made = command(teacher, "convert", _teacher_convert, "make a teacher's folder of a file of weights, in a sandbox")
    made.add_argument("source", type=Path, help="checkpoint (.pt, .pth, .ckpt), TorchScript, .keras, .weights.h5, ...")
    made.add_argument("folder", type=Path, help="folder to make")
    made.add_argument("--spec", type=Path, metavar="FILE", help="JSON with members of teacher.json (docs/teachers.md)")
    made.add_argument("--key", help="which of several sets of tensors in a checkpoint, such as state_dict")


def _teacher_list(arguments: Arguments) -> None:
    from vesu.distill.teacher_commands import list_teachers

    for line in list_teachers(arguments.folder):
        print(line)


def _teacher_check(arguments: Arguments) -> None:
    from vesu.distill.teacher_commands import check_teachers

    for line in check_teachers(arguments.folder, arguments.device):
        print(line, flush=True)


def _teacher_convert(arguments: Arguments) -> None:
    from vesu.distill.teacher_commands import convert

    for line in convert(arguments.source, arguments.folder, arguments.spec, arguments.key):
        print(line)

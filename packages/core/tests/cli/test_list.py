from medbolt.core.cli.main import main


def test_lists_every_export_with_one_line(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("medbolt.core 0.")
    (row,) = [line for line in lines if line.split()[:1] == ["TimmClassifier"]]
    assert "linear head" in row or "timm network" in row
    assert all(len(line.split()) > 2 for line in lines if line.startswith("  "))


def test_shows_only_what_contains_a_word(capsys):
    main(["list", "callback"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert "ObjectiveCallback" in names
    assert "TimmClassifier" not in names


def test_finds_a_word_of_the_description_and_a_name_written_otherwise(capsys):
    main(["list", "mean recall over"])
    main(["list", "sample-memory"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert names == ["BalancedAccuracy", "SampleMemory"]


def test_says_when_nothing_has_the_word(capsys):
    assert main(["list", "xyzzy"]) == 2
    assert "nothing installed has 'xyzzy' in its name or description" in capsys.readouterr().err

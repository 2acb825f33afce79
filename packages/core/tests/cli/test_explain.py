from medbolt.core.cli.explain import explain


def test_unknown_key_of_a_class():
    message = """Parser key "model":
      - Problem with given class_path 'medbolt.core.TimmClassifier':
          Option 'pretained' is not accepted"""
    assert explain(message) == (
        "unknown configuration key 'pretained' of medbolt.core.TimmClassifier (did you mean 'pretrained'?)."
    )


def test_unknown_section():
    assert "'dat.class_path' (did you mean 'data'?)" in explain(
        "Subcommand 'fit' does not accept option 'dat.class_path'"
    )


def test_wrong_type_names_key_and_value():
    message = """Parser key "lr":
        Subtypes: [<class 'float'>]
        Errors:
          - Expected a <class 'float'>
          - Expected a <class 'NoneType'>
        Given value type: <class 'str'>
        Given value: high"""
    assert explain(message) == "'lr' must be float, got 'high'."


def test_a_number_where_a_text_is_wanted_asks_for_quotes():
    message = "Parser key \"class_names\":\n  - Expected a <class 'str'>. Got value: 0"
    assert explain(message) == "'class_names' must be str, got '0', which needs quotes to be one."
    assert explain(message.replace("'str'", "'list'")) == "'class_names' must be list, got '0'."


def test_allowed_words_are_listed_beside_allowed_types():
    message = """Parser key "drop_last":
        Errors:
          - Expected a <class 'bool'>
          - Expected a typing.Literal['auto', 'never']
        Given value: sometimes"""
    assert explain(message) == "'drop_last' must be bool, 'auto' or 'never', got 'sometimes'."


def test_anything_else_is_flattened_and_shortened():
    text = explain("something\n   went\n wrong " + "x" * 1000)
    assert text.startswith("something went wrong x")
    assert len(text) < 420

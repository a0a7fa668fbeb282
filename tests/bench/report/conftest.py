"""A run's folder to write reports of."""

import pytest

from tests.support.report_pages import folder_of_run


@pytest.fixture
def run_folder(tmp_path):
    return folder_of_run(tmp_path)

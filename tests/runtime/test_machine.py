from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.profile import this_machine


def test_this_machine_has_the_default_engine() -> None:
    machine = this_machine()
    assert machine.num_threads == available_threads()
    assert "onnxruntime" in machine.engine_versions

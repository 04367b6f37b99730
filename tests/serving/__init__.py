import pytest

for _package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(_package, reason="needs the extra 'app'")

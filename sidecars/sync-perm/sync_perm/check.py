from sync_perm.airflow_config import AirflowConfig
from sync_perm.settings import Settings


def run(settings: Settings, config: AirflowConfig) -> int:
    return 0

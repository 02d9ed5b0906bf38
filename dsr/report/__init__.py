"""What a run leaves behind: records, tables and figures."""
from dsr.report import figures, records, tables

__all__ = ['figures', 'records', 'tables']

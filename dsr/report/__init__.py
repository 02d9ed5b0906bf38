"""What a reader sees of records: tables, figures and pages."""
from dsr.report import figures, tables

__all__ = ['figures', 'tables']

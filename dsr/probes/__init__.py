"""What a distilled set gives away, and how sure we are of each number."""
from dsr.probes import intervals

__all__ = ['intervals']

"""The columns of the arrays that a plan becomes; `layout.py` writes them, the kernels read them."""

from __future__ import annotations

# sources: a timeline under fields of the application
S_REACH, S_LADDERS, S_LADDERS_END, S_USES, S_DIRECT_END, S_USES_END, S_CONDITIONS, S_CONDITIONS_END = range(8)
S_KEYS, S_KEYS_END, S_TILE_WORDS, S_DENSE_WORDS, S_DENSE, S_MAPS = range(8, 14)
SOURCE_COLUMNS = 14

# ladders: windows that share the search for their edges
L_KIND, L_VALUE, L_RUNGS, L_RUNGS_END, L_GROUPS, L_GROUPS_END, L_PASSES, L_PASSES_END, L_BIT, L_TILED = range(10)
L_NUMBERS = 10  # whether it has lengths of time, and of groups only such as have numbers and nothing else
LADDER_COLUMNS = 11
TIME, BY_ROWS, CALENDAR, SINCE = range(4)  # kinds; `value`: offset, number of rows, place of the period, anchor's bit

# passes: what is no cell
P_KIND, P_BIT, P_SLOT, P_STORE, P_SIZE, P_OUTPUTS, P_OUTPUTS_END, P_RESULTS = range(8)
P_STEP_US, P_WEIGHTS, P_WEIGHTS_END, P_TILE, P_CODES = range(8, 13)
PASS_COLUMNS = 13
MAP, ORDERED, RECENT, COUNTED, BUCKETED, REGISTERED, DECAYED = range(7)  # kinds

# outputs of passes: (kind, integer parameter), beside a float parameter
O_KIND, O_PARAMETER = range(2)

# uses: what the result of a measure is for
# `limit` is what minus infinity means; infinity: a number in it is not exact
U_PLACE, U_RESULT, U_LIMIT, U_FEATURE = range(4)

# conditions on the application: they make a bit of their own of rows that have another
C_BIT, C_OF, C_SLOT, C_OPERATOR, C_COMPARAND = range(5)

# measures over keys
K_INNER, K_INNER_END, K_PROGRAM, K_PROGRAM_END, K_AGGREGATE, K_RESULT, K_WHOLE = range(7)

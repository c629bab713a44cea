"""Why a run says what it says of a row: shares of words, values and columns, each with the checks of its honesty."""

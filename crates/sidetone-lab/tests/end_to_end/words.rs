//! How alike two rows of words are.

/// The least that has to be done to one row of words to make it another.
pub(crate) struct Alignment {
    /// Words to be changed, added or taken away.
    pub(crate) edits: usize,
    /// Which words stay: their places in the first and in the second row.
    pub(crate) same: Vec<(usize, usize)>,
}

pub(crate) fn align<A, B>(first: &[A], second: &[B]) -> Alignment
where
    A: AsRef<str>,
    B: AsRef<str>,
{
    let same = |i: usize, j: usize| first[i].as_ref() == second[j].as_ref();
    // costs[i][j]: from the first i words to the first j.
    let mut costs = vec![vec![0; second.len() + 1]; first.len() + 1];
    for i in 0..=first.len() {
        for j in 0..=second.len() {
            costs[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let changed = costs[i - 1][j - 1] + usize::from(!same(i - 1, j - 1));
                    changed.min(costs[i - 1][j] + 1).min(costs[i][j - 1] + 1)
                }
            };
        }
    }
    let (mut i, mut j) = (first.len(), second.len());
    let mut alignment = Alignment {
        edits: costs[i][j],
        same: Vec::new(),
    };
    while i > 0 && j > 0 {
        if same(i - 1, j - 1) && costs[i][j] == costs[i - 1][j - 1] {
            alignment.same.push((i - 1, j - 1));
            (i, j) = (i - 1, j - 1);
        } else if costs[i][j] == costs[i - 1][j - 1] + 1 {
            (i, j) = (i - 1, j - 1);
        } else if costs[i][j] == costs[i - 1][j] + 1 {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    alignment.same.reverse();
    alignment
}

//! The cores for the processes of a pinned group.

/// Cores for the replicas and the load threads of one measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cores {
    /// By replica; each list in the order of the replica's threads.
    pub replicas: Vec<Vec<usize>>,
    /// By load thread.
    pub loads: Vec<usize>,
}

impl Cores {
    /// Divides the cores that this process may use: one for each load thread, the others in equal
    /// parts for the replicas. If there are fewer cores than replicas and load threads, each gets
    /// one in turn, the load threads from the other end: of two cores, one is for replicas 0 and 2,
    /// the other for replica 1 and the load.
    #[must_use]
    pub fn divide(usable: &[usize], replicas: usize, loads: usize) -> Self {
        let count = usable.len();
        if count == 0 {
            return Self::default();
        }
        if count < replicas + loads {
            return Self {
                replicas: (0..replicas).map(|index| vec![usable[index % count]]).collect(),
                loads: (0..loads).map(|index| usable[count - 1 - index % count]).collect(),
            };
        }
        let (for_replicas, for_loads) = usable.split_at(count - loads);
        let share = for_replicas.len() / replicas.max(1);
        Self {
            replicas: for_replicas
                .chunks(share.max(1))
                .take(replicas)
                .map(<[usize]>::to_vec)
                .collect(),
            loads: for_loads.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_shared_in_turn() {
        let cores = Cores::divide(&[4, 6], 3, 1);
        assert_eq!(cores.replicas, [[4], [6], [4]]);
        assert_eq!(cores.loads, [6]);
        let server = Cores::divide(&[4, 6], 1, 1);
        assert_eq!((server.replicas, server.loads), (vec![vec![4]], vec![6]));
    }

    #[test]
    fn many_cores_are_divided_without_overlap() {
        let usable: Vec<usize> = (0..16).collect();
        let cores = Cores::divide(&usable, 3, 1);
        assert_eq!(cores.replicas[2], [10, 11, 12, 13, 14]);
        assert_eq!(cores.loads, [15]);
        for (cores, replicas, loads) in [(4, 3, 1), (9, 3, 2), (16, 5, 4), (64, 7, 8)] {
            let usable: Vec<usize> = (0..cores).collect();
            let divided = Cores::divide(&usable, replicas, loads);
            let mut all: Vec<usize> = divided.replicas.concat();
            all.extend(&divided.loads);
            assert_eq!((divided.replicas.len(), divided.loads.len()), (replicas, loads));
            assert!(divided.replicas.iter().all(|share| share.len() == divided.replicas[0].len()));
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }

    #[test]
    fn one_core_is_for_all_and_none_is_not_divided() {
        let cores = Cores::divide(&[3], 3, 2);
        assert_eq!((cores.replicas, cores.loads), (vec![vec![3]; 3], vec![3, 3]));
        assert_eq!(Cores::divide(&[], 3, 1), Cores::default());
    }
}

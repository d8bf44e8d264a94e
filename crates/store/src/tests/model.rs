//! Random lives of a store against a map: appends, compactions at old revisions, restarts, crashes.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    /// Batches of (key, value size or deletion).
    Append(Vec<Vec<(u8, Option<usize>)>>),
    /// Remember the state, to compact at it later.
    Hold,
    Compact,
    Restart,
    /// Go on with a copy of the folder as it is now.
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let record = (0..12u8, prop::option::weighted(0.8, 0..2000usize));
    let batches = prop::collection::vec(prop::collection::vec(record, 0..6), 1..4);
    prop_oneof![
        8 => batches.prop_map(Act::Append),
        2 => Just(Act::Hold),
        1 => Just(Act::Compact),
        1 => Just(Act::Restart),
        1 => Just(Act::Crash),
    ]
}

#[derive(Default)]
struct Model {
    revision: u64,
    live: BTreeMap<String, (u64, Bytes)>,
    history: Vec<Record>,
    compacted: u64,
    held: (u64, BTreeMap<String, (u64, Bytes)>),
}

impl Model {
    fn batches(&mut self, shape: &[Vec<(u8, Option<usize>)>]) -> Vec<Batch> {
        shape.iter().map(|records| batch(records.iter().map(|record| self.record(record)).collect())).collect()
    }

    fn record(&mut self, (key, size): &(u8, Option<usize>)) -> Record {
        self.revision += 1;
        let value = size.map(|size| object(self.revision, size));
        let record = Record { revision: self.revision, key: format!("pods/default/{key}"), value };
        apply(&mut self.live, &record);
        self.history.push(record.clone());
        record
    }

    fn check(&self, recovered: &Recovered) {
        assert_eq!(recovered.revision, self.revision);
        assert_eq!(recovered.compacted, self.compacted);
        assert_eq!(objects(recovered), self.live);
        let from = self.history.partition_point(|record| record.revision <= self.compacted);
        assert_eq!(recovered.history, self.history[from..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_map_that_survives(acts in prop::collection::vec(act(), 1..60)) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path()).0;
        let mut model = Model::default();
        for act in acts {
            match act {
                Act::Append(shape) => store.append(&model.batches(&shape)).unwrap(),
                Act::Hold => model.held = (model.revision, model.live.clone()),
                Act::Compact => {
                    store.compact(model.held.0, live(&model.held.1)).unwrap();
                    model.compacted = model.held.0;
                }
                Act::Restart => {
                    drop(store);
                    let (opened, recovered) = open(dir.path());
                    model.check(&recovered);
                    store = opened;
                }
                Act::Crash => {
                    let state = copy(dir.path());
                    drop(store);
                    dir = state;
                    let (opened, recovered) = open(dir.path());
                    model.check(&recovered);
                    store = opened;
                }
            }
        }
        drop(store);
        model.check(&open(dir.path()).1);
    }
}

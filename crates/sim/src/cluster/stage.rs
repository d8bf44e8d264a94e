//! The cluster on a stage: a scenario lets time go by, sends requests in, and switches nodes off and on.

use api::Snapshot;

use super::{Cluster, Event};
use crate::invariants::Breach;
use crate::letters::Letter;

impl Cluster {
    /// What the store has.
    pub(crate) fn world(&self) -> &Snapshot {
        &self.durable
    }

    /// Lets so many seconds go by.
    pub(crate) fn pass(&mut self, seconds: i64) -> Result<(), Breach> {
        let until = self.seconds + seconds;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((second, ..), event) = entry.remove_entry();
            self.seconds = second;
            self.happen(*event)?;
        }
        self.seconds = until;
        Ok(())
    }

    /// Sends a request in and gives the answer.
    pub(crate) fn send_in(&mut self, letter: Letter) -> Result<String, Breach> {
        self.heard.clear();
        self.schedule(0, Event::Arrive(letter));
        while self.heard.is_empty()
            && let Some(((second, ..), event)) = self.events.pop_first()
        {
            self.seconds = second;
            self.happen(*event)?;
        }
        Ok(std::mem::take(&mut self.heard))
    }

    /// The lines of the trace since they were last asked for, without what people said.
    pub(crate) fn told(&mut self) -> String {
        let lines = std::mem::take(&mut self.trace.lines);
        lines.iter().filter(|line| !line.contains(" person ")).map(|line| format!("{line}\n")).collect()
    }

    /// From now on there is so much work for an app, in thousandths of a core; nodes tell of it at their next report.
    pub(crate) fn work(&mut self, app: &str, milli: i64) {
        if !self.people.measure() {
            self.schedule(0, Event::Report);
        }
        self.people.set_load(app, milli);
    }

    /// Ends the server's process; it starts again after a while.
    pub(crate) fn stop(&mut self) -> Result<(), Breach> {
        self.crash()
    }

    /// Takes the power from a node or gives it back.
    pub(crate) fn switch(&mut self, index: usize, on: bool) {
        if on {
            return self.schedule(0, Event::PowerOn(index));
        }
        let name = self.nodes[index].name.clone();
        self.trace.tell(self.seconds, "power", || format!("{name} has none"));
        self.nodes[index].lose_power();
    }
}

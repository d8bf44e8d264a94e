//! Compares our log with fjall, interleaved in one run: `cargo run --release -p store --features engines --example engines --
//! DIR [SECONDS [ROUNDS]]`. Values are 1500 bytes over 20 000 keys, one writer, each commit durable before the next begins.
//! The figures that decided are in `docs/decisions/0001-store.md`.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use store::{Batch, Limits, Record, Store};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const VALUE: usize = 1500;
const KEYS: u64 = 20_000;
const POOL: u64 = 4096;

/// xorshift: the same numbers for every engine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Half of it random: compresses to about a half, like an object on its own.
fn half_random(numbers: &mut Numbers) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < VALUE {
        text += &format!(r#"{{"name":"pod-template-spec","uid":"{:016x}{:016x}"}},"#, numbers.next(), numbers.next());
    }
    text.truncate(VALUE);
    text.into_bytes()
}

/// A pod as the server writes it: like its brothers but for names, addresses and times.
fn pod(numbers: &mut Numbers) -> Vec<u8> {
    let (id, address) = (numbers.next(), numbers.next() % 254);
    let mut text = format!(
        r#"{{"metadata":{{"name":"web-7d4b9c6f5-{:05x}","generateName":"web-7d4b9c6f5-","namespace":"default","uid":"{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}","resourceVersion":"{}","creationTimestamp":"2026-01-02T03:04:{:02}Z","labels":{{"app":"web","pod-template-hash":"7d4b9c6f5"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d4b9c6f5","uid":"0b6f4c9e-64a5-4c35-9a53-7a3d6a1a8a5e","controller":true,"blockOwnerDeletion":true}}]}},"spec":{{"containers":[{{"name":"web","image":"nginx:1.16.1","ports":[{{"containerPort":80,"protocol":"TCP"}}],"resources":{{"requests":{{"cpu":"10m","memory":"16Mi"}}}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","nodeName":"node-{:03}","schedulerName":"default-scheduler"}},"status":{{"phase":"Running","podIP":"10.244.{}.{address}","startTime":"2026-01-02T03:04:{:02}Z","conditions":[{{"type":"Ready","status":"True","lastTransitionTime":"2026-01-02T03:04:{:02}Z"}}]"#,
        id & 0xfffff,
        id as u32,
        id >> 48,
        id & 0xfff,
        (id >> 12) & 0xfff,
        id & 0xffff_ffff_ffff,
        id % 1_000_000,
        id % 60,
        id % 100,
        id % 100,
        id % 59,
        id % 58
    );
    while text.len() < VALUE {
        text.push_str(r#","qosClass":"Burstable""#);
    }
    text.truncate(VALUE);
    text.into_bytes()
}

trait Engine {
    /// Durable when it returns.
    fn commit(&mut self, puts: Vec<(String, Vec<u8>)>) -> Result<()>;
    /// Bytes it says it has written, if it counts them.
    fn written(&self) -> u64 {
        0
    }
}

struct Ours {
    store: Store,
    revision: u64,
}

impl Engine for Ours {
    fn commit(&mut self, puts: Vec<(String, Vec<u8>)>) -> Result<()> {
        let records = puts.into_iter().map(|(key, value)| {
            self.revision += 1;
            Record { revision: self.revision, key, value: Some(value.into()) }
        });
        let batch = Batch { records: records.collect() };
        Ok(self.store.append(&[batch])?)
    }

    fn written(&self) -> u64 {
        self.store.stats().bytes_written
    }
}

struct Fjall(fjall::Database, fjall::Keyspace);

impl Engine for Fjall {
    fn commit(&mut self, puts: Vec<(String, Vec<u8>)>) -> Result<()> {
        let mut batch = self.0.batch().durability(Some(fjall::PersistMode::SyncData));
        for (key, value) in puts {
            batch.insert(&self.1, key, value);
        }
        Ok(batch.commit()?)
    }
}

fn open(engine: &str, dir: &Path) -> Result<Box<dyn Engine>> {
    Ok(match engine {
        "fjall" => {
            let database = fjall::Database::builder(dir).open()?;
            let keyspace = database.keyspace("objects", fjall::KeyspaceCreateOptions::default)?;
            Box::new(Fjall(database, keyspace))
        }
        _ => Box::new(Ours { store: Store::open(dir, Limits::default())?.0, revision: 0 }),
    })
}

struct Run {
    puts_per_second: f64,
    p50: Duration,
    p99: Duration,
    worst: Duration,
    cpu_per_put: Duration,
    disk_per_put: f64,
    written_per_put: f64,
}

fn run(engine: &mut dyn Engine, values: &[Vec<u8>], batch: usize, seconds: f64) -> Result<Run> {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let mut puts = |count: usize| -> Vec<(String, Vec<u8>)> {
        let mut put = || {
            let key = format!("pods/default/pod-{:08}", numbers.next() % KEYS);
            let mut value = values[(numbers.next() % POOL) as usize].clone();
            value[100..108].copy_from_slice(&(numbers.next() % 100_000_000).to_string().into_bytes().repeat(8)[..8]);
            (key, value)
        };
        (0..count).map(|_| put()).collect()
    };
    for _ in 0..20 {
        engine.commit(puts(batch))?;
    }
    let (written, disk, start) = (engine.written(), process_writes()?, Instant::now());
    let (mut cpu, mut latencies) = (Duration::ZERO, Vec::new());
    while start.elapsed().as_secs_f64() < seconds {
        let puts = puts(batch);
        let (begin, busy) = (Instant::now(), cpu_time()?);
        engine.commit(puts)?;
        latencies.push(begin.elapsed());
        cpu += cpu_time()?.saturating_sub(busy);
    }
    let elapsed = start.elapsed().as_secs_f64();
    latencies.sort();
    let (commits, count) = (latencies.len(), (latencies.len() * batch) as f64);
    Ok(Run {
        puts_per_second: count / elapsed,
        p50: latencies[commits / 2],
        p99: latencies[commits * 99 / 100],
        worst: latencies[commits - 1],
        cpu_per_put: cpu.div_f64(count),
        disk_per_put: (process_writes()? - disk) as f64 / count,
        written_per_put: (engine.written() - written) as f64 / count,
    })
}

/// CPU of this thread, from the scheduler's own account.
fn cpu_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(text.split(' ').next().ok_or("schedstat is empty")?.parse()?))
}

/// Bytes that this process caused to be sent to the disk, by whole pages, as the kernel accounts them.
fn process_writes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).ok_or("no write_bytes in /proc/self/io")?;
    Ok(line.parse()?)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let dir = Path::new(arguments.get(1).ok_or("usage: engines DIR [SECONDS [ROUNDS]]")?);
    let seconds: f64 = arguments.get(2).map_or(Ok(2.0), |text| text.parse())?;
    let rounds: usize = arguments.get(3).map_or(Ok(3), |text| text.parse())?;
    println!("round values batch engine | puts/s p50_us p99_us worst_us | cpu_us/put write_bytes/put own_count/put");
    for round in 0..rounds {
        for (name, make) in [("half-random", half_random as fn(&mut Numbers) -> Vec<u8>), ("pods", pod)] {
            let mut numbers = Numbers(77 + round as u64);
            let values: Vec<Vec<u8>> = (0..POOL).map(|_| make(&mut numbers)).collect();
            for batch in [1, 16, 256] {
                for engine in ["ours", "fjall"] {
                    let place = dir.join(format!("engines-{engine}"));
                    let _ = fs::remove_dir_all(&place);
                    let result = run(open(engine, &place)?.as_mut(), &values, batch, seconds)?;
                    fs::remove_dir_all(&place)?;
                    print(&format!("{round} {name} {batch} {engine}"), &result);
                }
            }
        }
    }
    Ok(())
}

fn print(head: &str, run: &Run) {
    println!(
        "{head} | {:.0} {} {} {} | {:.2} {:.0} {:.0}",
        run.puts_per_second,
        run.p50.as_micros(),
        run.p99.as_micros(),
        run.worst.as_micros(),
        run.cpu_per_put.as_secs_f64() * 1e6,
        run.disk_per_put,
        run.written_per_put
    );
}

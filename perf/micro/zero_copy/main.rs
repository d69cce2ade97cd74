//! Ways to send through `io_uring`, and what each costs: plain sends, sends without a copy
//! (`IORING_OP_SEND_ZC`, with buffers that are registered and that are not), and plain sends from a
//! ring that a kernel thread polls (`IORING_SETUP_SQPOLL`).
//!
//! One connection, one send at a time, from buffers that are written for each send and reused as
//! soon as the kernel is done with them, as in a hub that seals frames. All ways take turns in each
//! round, and ratios are taken round by round. CPU time is that of the process, so over loopback it
//! includes the receiver, and with a polled ring the kernel's thread.
//!
//! Over loopback, data sent "without a copy" is copied when it is received; `copied` says how much.
//! With two machines, run `-- sink ADDRESS:PORT` on one and `-- --sink ADDRESS:PORT` on the other.

#![deny(unsafe_code)]

#[cfg(target_os = "linux")]
mod sender;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("io_uring is Linux's");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{ErrorKind, Read as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::time::{ClockId, clock_gettime};

    use super::sender::{Sender, Way};

    const KIB: usize = 1024;
    const SIZES: [usize; 4] = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB];
    const SINK_BYTES: usize = 256 * KIB;

    struct Options {
        rounds: usize,
        each: Duration,
        /// Where bytes are sent; if absent, to a thread of this process.
        sink: Option<SocketAddr>,
    }

    /// The result of one way in one round.
    #[derive(Clone, Copy)]
    struct Figure {
        bytes_per_s: f64,
        bytes_per_cpu_s: f64,
        copied: f64,
    }

    pub(super) fn main() {
        let words: Vec<String> = std::env::args().skip(1).collect();
        if let [word, address, ..] = &words[..]
            && word == "sink"
        {
            let listener = TcpListener::bind(address).expect("the address is this machine's");
            listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| drain(stream))));
            return;
        }
        let options = parse(&words);
        println!(
            "| Bytes per send | Way | MiB/s | MiB/CPU s | throughput ratio | per CPU ratio | copied |"
        );
        println!("|--:|---|--:|--:|--:|--:|--:|");
        for size in SIZES {
            measure(&options, size);
        }
    }

    fn parse(words: &[String]) -> Options {
        // Without `--bench` this only tests that it runs.
        let is_bench = words.iter().any(|word| word == "--bench");
        let (rounds, each) = if is_bench { (5, 300) } else { (1, 5) };
        let value = |name: &str| {
            let at = words.iter().position(|word| word == name)?;
            Some(words.get(at + 1).unwrap_or_else(|| panic!("{name} needs a value")))
        };
        let number = |name, default| {
            value(name).map_or(default, |text| text.parse().expect("a number is needed"))
        };
        Options {
            rounds: number("--rounds", rounds).max(1) as usize,
            each: Duration::from_millis(number("--milliseconds", each)),
            sink: value("--sink").map(|text| text.parse().expect("ADDRESS:PORT is needed")),
        }
    }

    fn measure(options: &Options, size: usize) {
        let mut figures: Vec<Vec<Figure>> = vec![Vec::new(); Way::ALL.len()];
        for _ in 0..options.rounds {
            for (way, list) in Way::ALL.into_iter().zip(&mut figures) {
                match run(options, way, size) {
                    Ok(figure) => list.push(figure),
                    Err(error) => eprintln!("{way:?} is not to be had: {error}"),
                }
            }
        }
        let plain = figures[0].clone();
        for (way, list) in Way::ALL.into_iter().zip(&figures) {
            if list.len() < plain.len() {
                continue;
            }
            let ratio = |of: fn(&Figure) -> f64| {
                spread(list.iter().zip(&plain).map(|(it, base)| of(it) / of(base)).collect(), 2)
            };
            println!(
                "| {} KiB | {} | {} | {} | {} | {} | {:.0} % |",
                size / KIB,
                way.name(),
                spread(list.iter().map(|it| it.bytes_per_s / 1_048_576.0).collect(), 0),
                spread(list.iter().map(|it| it.bytes_per_cpu_s / 1_048_576.0).collect(), 0),
                ratio(|it| it.bytes_per_s),
                ratio(|it| it.bytes_per_cpu_s),
                100.0 * list.iter().map(|it| it.copied).sum::<f64>() / list.len() as f64,
            );
        }
    }

    /// Median [lowest–highest].
    fn spread(mut list: Vec<f64>, digits: usize) -> String {
        list.sort_by(f64::total_cmp);
        let (low, median, high) = (list[0], list[list.len() / 2], list[list.len() - 1]);
        format!("{median:.digits$} [{low:.digits$}–{high:.digits$}]")
    }

    fn run(options: &Options, way: Way, size: usize) -> std::io::Result<Figure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(options.sink.unwrap_or(listener.local_addr()?))?;
        stream.set_nodelay(true)?;
        let sink = match options.sink {
            Some(_) => None,
            None => {
                let (end, _) = listener.accept()?;
                Some(thread::spawn(move || drain(end)))
            }
        };
        let mut sender = Sender::new(stream, way, size)?;
        let (start, cpu) = (Instant::now(), cpu_time());
        let mut bytes = 0;
        while start.elapsed() < options.each {
            bytes += sender.send()?;
        }
        let copied = sender.finish()?;
        if let Some(sink) = sink {
            sink.join().expect("the sink ends with the stream");
        }
        Ok(Figure {
            bytes_per_s: bytes as f64 / start.elapsed().as_secs_f64(),
            bytes_per_cpu_s: bytes as f64 / (cpu_time() - cpu).as_secs_f64(),
            copied,
        })
    }

    fn cpu_time() -> Duration {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    fn drain(mut stream: TcpStream) {
        let mut buffer = vec![0; SINK_BYTES];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

package dev.tidemark.bench.cli;

import dev.tidemark.bench.guest.SelfCheckingGuest;
import dev.tidemark.bench.lab.DeviceState;
import dev.tidemark.engine.device.OutgoingVfioDevice;
import dev.tidemark.engine.migrate.AtLimit;
import dev.tidemark.engine.migrate.MigrationOptions;
import dev.tidemark.engine.migrate.MigrationResult;
import dev.tidemark.engine.migrate.Outcome;
import dev.tidemark.engine.migrate.OutgoingMigration;
import dev.tidemark.engine.migrate.StateSection;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.Terminal;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** Runs a guest that checks itself, migrates it while it writes, and says whether all arrived. */
@Command(
    name = "migrate",
    description = {
      "Runs a guest that checks its own memory and migrates it to another process while it writes.",
      "Exit status: 0 completed and verified, 1 failed, 2 wrong usage."
    },
    mixinStandardHelpOptions = true,
    showDefaultValues = true)
final class MigrateCommand implements Callable<Integer> {
  private static final long RAM = 1L << 30;
  private static final long LAB_RAM = 8 << 20;
  private static final Duration FIRST_PASS_LIMIT = Duration.ofMinutes(10);

  /** Both ends read all of the memory while the guest is stopped, for a digest of it. */
  private static final Duration STOP_LIMIT = Duration.ofMinutes(5);

  private static final Duration ANSWER_LIMIT = Duration.ofSeconds(60);
  private static final Duration REPORT_LIMIT = Duration.ofMinutes(15);
  private static final long SIGNAL_SECONDS = 10;

  /** For how long the guest is watched before its migration. */
  private static final long BEFORE_MILLIS = 100;

  @Spec private CommandSpec spec;

  @Option(
      names = "--guest",
      defaultValue = "auto",
      description =
          "${COMPLETION-CANDIDATES}; only devices write the memory of iommufd, dmalog and type1,"
              + " which need the kernel lab")
  private GuestKind kind;

  @Option(
      names = "--ram",
      paramLabel = "SIZE",
      converter = Units.Bytes.class,
      description = "the guest's memory; 1GiB, or 8MiB of one of the lab's")
  private Long ram;

  private long ramBytes;

  @Option(
      names = "--dirty-rate",
      defaultValue = "10000",
      paramLabel = "PAGES/s",
      converter = Units.Rate.class,
      description = "how fast the guest writes, above 0; max: as fast as it can")
  private long rate;

  @Option(
      names = "--tracking",
      defaultValue = "auto",
      description = "${COMPLETION-CANDIDATES}; of a kvm guest's writes")
  private Tracking tracking;

  @Option(
      names = "--downtime-limit",
      defaultValue = "300ms",
      paramLabel = "TIME",
      converter = Units.Time.class,
      description = "the guest is stopped once the rest should take no longer")
  private Duration downtimeLimit;

  @Option(
      names = "--max-bandwidth",
      defaultValue = "0",
      paramLabel = "BYTES/s",
      converter = Units.Bytes.class,
      description = "while the guest runs; 0: no limit")
  private long maxBandwidth;

  @Option(names = "--max-rounds", defaultValue = "30", description = "rounds before giving up")
  private int maxRounds;

  @Option(
      names = "--time-limit",
      defaultValue = "10m",
      paramLabel = "TIME",
      converter = Units.Time.class,
      description = "time before giving up")
  private Duration timeLimit;

  @Option(
      names = "--at-limit",
      defaultValue = "fail",
      description = "fail: the guest stays; stop_and_copy: it is stopped and moved all the same")
  private AtLimit atLimit;

  @Option(
      names = "--to",
      paramLabel = "tcp:HOST:PORT|unix:PATH",
      converter = Endpoint.Converter.class,
      description = "a listening receiver; without it one is started")
  private Endpoint destination;

  @Option(
      names = "--json",
      description = "one JSON object at the end, whatever the end: status, reason, what was sent")
  private boolean json;

  private final long nonce = new SecureRandom().nextLong();
  private final CountDownLatch ended = new CountDownLatch(1);
  private final CountDownLatch migrated = new CountDownLatch(1);
  private volatile boolean completed;
  private ProgressLine progress;
  private long digestNanos;
  private Optional<Duration> cpuUsed = Optional.empty();

  // Guarded by this: a signal and the end of the migration exclude each other.
  private OutgoingMigration migration;
  private boolean ending;
  private boolean told;

  @Override
  public Integer call() throws InterruptedException {
    MigrationOptions options = options();
    progress =
        json
            ? ProgressLine.on(System.err, Terminal.STDERR)
            : ProgressLine.on(System.out, Terminal.STDOUT);
    Thread signal = new Thread(this::endBySignal, "signal");
    Runtime.getRuntime().addShutdownHook(signal);
    try {
      return migrate(options);
    } catch (ParameterException e) {
      throw e;
    } catch (RuntimeException e) {
      Map<String, Object> failure = Tidemark.failure("failed", Tidemark.text(e));
      failure.put("verified", false);
      tell(failure);
      return Tidemark.FAILED;
    } finally {
      ended.countDown();
      try {
        Runtime.getRuntime().removeShutdownHook(signal);
      } catch (IllegalStateException e) {
        // The process is ending: a signal came.
      }
    }
  }

  /** Cancels the migration, and has its end told; the process ends with this thread. */
  private void endBySignal() {
    OutgoingMigration running;
    synchronized (this) {
      ending = true;
      running = migration;
    }
    Map<String, Object> failure;
    if (running == null) {
      failure = Tidemark.failure("cancelled", "ended by a signal before the migration began");
    } else {
      running.cancel();
      failure = awaitEnd();
    }
    failure.put("verified", false);
    tell(failure);
  }

  /**
   * Waits for whoever runs the migration to tell its end; not for the destination's report.
   *
   * @return what there is to be said if it does not come
   */
  private Map<String, Object> awaitEnd() {
    try {
      if (migrated.await(SIGNAL_SECONDS, TimeUnit.SECONDS)) {
        if (completed) {
          return Tidemark.failure(
              "completed", "ended by a signal: the guest is at the destination, not verified yet");
        }
        ended.await(SIGNAL_SECONDS, TimeUnit.SECONDS);
      }
    } catch (InterruptedException e) {
      // The process ends anyway.
    }
    return Tidemark.failure("unknown", "ended by a signal: the destination may run the guest");
  }

  private int migrate(MigrationOptions options) throws InterruptedException {
    GuestKind guestKind = kind.resolved();
    ramBytes = ram != null ? ram : guestKind.isOfTheLab() ? LAB_RAM : RAM;
    HostMemory.require(ramBytes);
    if (destination == null) {
      // Both ends are on this host, so both need room.
      HostMemory.require(ramBytes > Long.MAX_VALUE / 2 ? ramBytes : 2 * ramBytes);
    }
    Wire.Hello hello = new Wire.Hello("0.1", guestKind, ramBytes, nonce);
    // First, as it takes as long to come up as a guest here to fill its memory.
    try (ReceiverProcess receiver = destination == null ? ReceiverProcess.start() : null;
        TrackedGuest tracked = create(guestKind)) {
      tracked.guest().start();
      if (receiver != null) {
        receiver.greet(hello);
      }
      // Once through its memory at full speed, so that there is something in it to send.
      if (!tracked.guest().awaitFullPass(FIRST_PASS_LIMIT)) {
        throw new IllegalStateException(
            tracked.guest().error().orElse("the guest did not come through its memory"));
      }
      tracked.guest().setRate(rate);
      if (receiver != null) {
        return migrate(tracked, guestKind, options, receiver.connection(), receiver);
      }
      try (Socket socket = destination.connect()) {
        Wire.send(socket, hello);
        return migrate(tracked, guestKind, options, socket, null);
      }
    }
  }

  private TrackedGuest create(GuestKind guestKind) {
    try {
      return TrackedGuest.create(guestKind, tracking, ramBytes, 0);
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), e.getMessage());
    }
  }

  private MigrationOptions options() {
    try {
      return new MigrationOptions(
              downtimeLimit,
              maxBandwidth,
              maxRounds,
              timeLimit,
              atLimit,
              MigrationOptions.DEFAULT.answerLimit(),
              true,
              Wire.MACHINE)
          .withStopLimit(STOP_LIMIT);
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), e.getMessage());
    }
  }

  private int migrate(
      TrackedGuest tracked,
      GuestKind guestKind,
      MigrationOptions options,
      Socket socket,
      ReceiverProcess receiver)
      throws InterruptedException {
    Wire.Answer answer = Wire.receive(socket, Wire.Answer.class, ANSWER_LIMIT);
    if (answer.error() != null) {
      throw new IllegalStateException(
          "refused: " + Text.quoted("the destination", answer.error()) + complaint(receiver));
    }
    Optional<OutgoingVfioDevice> device =
        tracked.migratingDevice().map(moved -> new OutgoingVfioDevice(Wire.DEVICE, moved));
    GuestRounds rounds = new GuestRounds(tracked.guest(), progress);
    rounds.measureBefore(BEFORE_MILLIS);
    var outgoing =
        new OutgoingMigration(
            tracked.tracker(),
            socket,
            tracked.control(),
            device.stream().toList(),
            sections(tracked.guest()),
            options,
            rounds);
    synchronized (this) {
      if (ending) {
        throw new IllegalStateException("ended by a signal");
      }
      migration = outgoing;
    }
    Optional<Duration> cpuBefore = cpu(receiver);
    MigrationResult result = outgoing.run();
    rounds.end();
    if (receiver != null
        && (result.outcome() == Outcome.COMPLETED || result.outcome() == Outcome.UNKNOWN)) {
      receiver.keep();
    }
    cpuUsed = cpu(receiver).flatMap(after -> cpuBefore.map(after::minus));
    completed = result.outcome() == Outcome.COMPLETED;
    migrated.countDown();
    Wire.Report report = null;
    String problem = result.reason();
    if (result.outcome() == Outcome.COMPLETED) {
      try {
        report = Wire.receive(socket, Wire.Report.class, REPORT_LIMIT);
        problem = problem(report, tracked);
      } catch (RuntimeException e) {
        problem = "no report came: " + Tidemark.text(e);
      }
    } else {
      problem += complaint(receiver);
    }
    boolean verified = problem.isEmpty();
    if (!verified) {
      problem += whereabouts(tracked, result);
    }
    Map<String, Object> summary = summary(tracked, guestKind, result, device, report, problem);
    if (json) {
      rounds.put(summary, report == null ? null : report.throughput());
    } else {
      summary.put("guestThroughput", rounds.line());
    }
    tell(summary);
    return verified ? Tidemark.DONE : Tidemark.FAILED;
  }

  /** CPU time that both ends have used; empty if the other is not ours, or has ended. */
  private static Optional<Duration> cpu(ReceiverProcess receiver) {
    Optional<Duration> theirs = Optional.ofNullable(receiver).flatMap(ReceiverProcess::cpu);
    return theirs.flatMap(
        other -> ProcessHandle.current().info().totalCpuDuration().map(other::plus));
  }

  private static String complaint(ReceiverProcess receiver) throws InterruptedException {
    String words = receiver == null ? "" : receiver.complaint();
    return words.isEmpty() ? "" : "; " + words;
  }

  /**
   * What is wrong at the destination.
   *
   * @return nothing, if the destination says that all is right and has shown that it had the memory
   */
  private String problem(Wire.Report report, TrackedGuest tracked) {
    if (!report.verified() || report.error() != null) {
      return report.error() == null
          ? "the destination does not say that the guest found every page right"
          : Text.quoted("the destination", report.error());
    }
    long state = tracked.migratingDevice().map(DeviceState::digest).orElse(0L);
    if (state != report.deviceDigest()) {
      return differs("device's state", state, report.deviceDigest());
    }
    // The guest never runs here again, so that its memory is still what it was at the handover.
    long memory = ReceiveCommand.digest(tracked.guest(), nonce);
    return memory == report.memoryDigest()
        ? ""
        : differs("memory at the handover", memory, report.memoryDigest());
  }

  private static String differs(String what, long here, long there) {
    return String.format(
        Locale.ROOT,
        "the %s differs: digest %016x at the source, %016x at the destination",
        what,
        here,
        there);
  }

  private static String whereabouts(TrackedGuest tracked, MigrationResult result) {
    return switch (result.outcome()) {
      case FAILED, CANCELLED ->
          tracked
              .guest()
              .error()
              .map(error -> "; and the guest at the source found: " + error)
              .orElse("; the guest goes on running at the source");
      case COMPLETED -> "; the guest is at the destination, and was not verified";
      case UNKNOWN, NOWHERE -> "";
    };
  }

  private List<StateSection> sections(SelfCheckingGuest guest) {
    return List.of(
        new StateSection(
            Wire.STATE,
            0,
            1,
            out -> {
              byte[] state = guest.saveState();
              out.be32(state.length);
              out.bytes(state);
            }),
        new StateSection(
            Wire.DIGEST,
            0,
            1,
            out -> {
              long start = System.nanoTime();
              out.be64(ReceiveCommand.digest(guest));
              digestNanos = System.nanoTime() - start;
            }));
  }

  private Map<String, Object> summary(
      TrackedGuest tracked,
      GuestKind guestKind,
      MigrationResult result,
      Optional<OutgoingVfioDevice> device,
      Wire.Report report,
      String problem) {
    Map<String, Object> summary =
        Tidemark.failure(
            result.outcome().name().toLowerCase(Locale.ROOT), problem.isEmpty() ? null : problem);
    summary.put("guest", guestKind.name());
    summary.put("sources", result.sources());
    summary.put("bitmapOperations", result.bitmapOperations());
    summary.put("rounds", result.rounds());
    summary.put("ramBytes", result.ramBytes());
    summary.put("pagesSent", result.pagesSent());
    summary.put("zeroPages", result.zeroPages());
    summary.put("bytesSent", result.bytesSent());
    device.ifPresent(
        moved -> {
          summary.put("preCopyBytes", moved.preCopyBytes());
          summary.put("stopCopyBytes", moved.stopCopyBytes());
        });
    tracked.unmaps().ifPresent(unmaps -> summary.put("unmaps", unmaps));
    summary.put("totalMillis", millis(result.totalNanos()));
    summary.put(
        "firstPageMillis", result.firstPageNanos() < 0 ? null : millis(result.firstPageNanos()));
    long digests = digestNanos + (report == null ? 0 : report.digestNanos());
    long stopped = tracked.guest().lastExitNanos();
    long downtime = report == null ? -1 : report.firstRunNanos() - stopped - digests;
    // The destination's clock is this one's only on one host, and its word is its own.
    boolean plausible =
        report != null
            && report.digestNanos() >= 0
            && downtime > 0
            && report.firstRunNanos() <= System.nanoTime();
    summary.put("downtimeMillis", plausible ? millis(downtime) : null);
    summary.put("digestMillis", plausible ? millis(digests) : millis(digestNanos));
    summary.put("cpuMillis", cpuUsed.map(Duration::toMillis).orElse(null));
    summary.put("verified", problem.isEmpty());
    return summary;
  }

  /** Prints the one final report; a signal may be faster than the end of the migration. */
  private synchronized void tell(Map<String, Object> summary) {
    if (told) {
      return;
    }
    told = true;
    progress.end();
    Object problem = summary.get("reason");
    if (json) {
      System.out.println(Json.of(summary));
    } else if (summary.containsKey("guest")) {
      summary.forEach(
          (name, value) -> {
            if (!name.equals("reason")) {
              System.out.printf(
                  Locale.ROOT, "%-16s %s%n", name, value == null ? "not known" : value);
            }
          });
    }
    System.out.flush();
    if (problem != null) {
      Tidemark.complain(problem.toString());
    }
  }

  private static double millis(long nanos) {
    return Math.round(nanos / 1e4) / 100.0;
  }
}

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
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.LinkedHashMap;
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
  private static final Duration HELLO_LIMIT = Duration.ofSeconds(60);
  private static final Duration REPORT_LIMIT = Duration.ofMinutes(15);

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
      description = "how fast the guest writes; max: as fast as it can")
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
      paramLabel = "tcp:HOST:PORT",
      converter = Units.Tcp.class,
      description = "a listening receiver; without it one is started")
  private InetSocketAddress destination;

  @Option(names = "--json", description = "one JSON object at the end")
  private boolean json;

  private long digestNanos;

  @Override
  public Integer call() throws InterruptedException {
    MigrationOptions options = options();
    GuestKind guestKind = kind.resolved();
    ramBytes = ram != null ? ram : guestKind.isOfTheLab() ? LAB_RAM : RAM;
    HostMemory.require(ramBytes);
    if (destination == null) {
      // Both ends are on this host, so both need room.
      HostMemory.require(Math.multiplyExact(2, ramBytes));
    }
    TrackedGuest made;
    try {
      made = TrackedGuest.create(guestKind, tracking, ramBytes, 0);
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), e.getMessage());
    }
    try (TrackedGuest tracked = made) {
      tracked.guest().start();
      // Once through its memory at full speed, so that there is something in it to send.
      if (!tracked.guest().awaitFullPass(FIRST_PASS_LIMIT)) {
        throw new IllegalStateException(
            tracked.guest().error().orElse("the guest did not come through its memory"));
      }
      tracked.guest().setRate(rate);
      if (destination != null) {
        return migrate(tracked, guestKind, options, destination, null);
      }
      try (ReceiverProcess receiver = ReceiverProcess.start()) {
        return migrate(tracked, guestKind, options, receiver.address(), receiver);
      }
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
          Wire.MACHINE);
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), e.getMessage());
    }
  }

  private int migrate(
      TrackedGuest tracked,
      GuestKind guestKind,
      MigrationOptions options,
      InetSocketAddress to,
      ReceiverProcess receiver)
      throws InterruptedException {
    try (Socket socket = Socket.connect(to)) {
      Wire.send(socket, new Wire.Hello("0.1", guestKind, ramBytes));
      Wire.Answer answer = Wire.receive(socket, Wire.Answer.class, HELLO_LIMIT);
      if (answer.error() != null) {
        throw new IllegalStateException("the destination refuses: " + answer.error());
      }
      var progress =
          new ProgressLine(
              json ? System.err : System.out,
              System.console() != null && System.console().isTerminal());
      Optional<OutgoingVfioDevice> device =
          tracked.migratingDevice().map(moved -> new OutgoingVfioDevice(Wire.DEVICE, moved));
      var migration =
          new OutgoingMigration(
              tracked.tracker(),
              socket,
              tracked.control(),
              device.stream().toList(),
              sections(tracked.guest()),
              options,
              progress);
      MigrationResult result = run(migration);
      Wire.Report report = null;
      String problem = result.reason();
      if (result.outcome() == Outcome.COMPLETED) {
        report = Wire.receive(socket, Wire.Report.class, REPORT_LIMIT);
        problem = report.verified() ? "" : report.error();
        long state = tracked.migratingDevice().map(DeviceState::digest).orElse(0L);
        if (problem.isEmpty() && state != report.deviceDigest()) {
          problem =
              "the device's state differs: digest %016x at the source, %016x at the destination"
                  .formatted(state, report.deviceDigest());
        }
      }
      boolean verified = report != null && problem.isEmpty();
      summarize(tracked, guestKind, result, device, report, verified);
      if (!problem.isEmpty()) {
        String there =
            receiver == null || result.outcome() == Outcome.COMPLETED ? "" : receiver.complaint();
        System.err.println(
            Tidemark.PREFIX
                + problem
                + (there.isEmpty() ? "" : "; the receiver: " + there)
                + whereabouts(tracked, result));
      }
      return verified ? Tidemark.DONE : Tidemark.FAILED;
    }
  }

  private static String whereabouts(TrackedGuest tracked, MigrationResult result) {
    return switch (result.outcome()) {
      case FAILED, CANCELLED ->
          tracked
              .guest()
              .error()
              .map(error -> "; and the guest at the source found: " + error)
              .orElse("; the guest goes on running at the source");
      case COMPLETED, UNKNOWN -> "";
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

  /** Runs the migration; a signal that ends this process cancels it first. */
  private static MigrationResult run(OutgoingMigration migration) {
    var ended = new CountDownLatch(1);
    Thread canceller =
        new Thread(
            () -> {
              if (migration.cancel()) {
                try {
                  ended.await(10, TimeUnit.SECONDS);
                } catch (InterruptedException e) {
                  // The process ends anyway.
                }
                System.err.println(
                    Tidemark.PREFIX + "cancelled; the guest went on running at the source");
              }
            },
            "cancel");
    Runtime.getRuntime().addShutdownHook(canceller);
    try {
      return migration.run();
    } finally {
      ended.countDown();
      try {
        Runtime.getRuntime().removeShutdownHook(canceller);
      } catch (IllegalStateException e) {
        // The process is ending: that was the cancel.
      }
    }
  }

  private void summarize(
      TrackedGuest tracked,
      GuestKind guestKind,
      MigrationResult result,
      Optional<OutgoingVfioDevice> device,
      Wire.Report report,
      boolean verified) {
    long digests = digestNanos + (report == null ? 0 : report.digestNanos());
    long downtime =
        report == null ? -1 : report.firstRunNanos() - tracked.guest().lastExitNanos() - digests;
    Map<String, Object> summary = new LinkedHashMap<>();
    summary.put("status", result.outcome().name().toLowerCase(Locale.ROOT));
    summary.put("guest", guestKind.name());
    summary.put("sources", result.sources());
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
    summary.put("downtimeMillis", report == null ? null : millis(downtime));
    summary.put("digestMillis", millis(digests));
    summary.put("verified", verified);
    if (json) {
      System.out.println(Json.of(summary));
    } else {
      summary.forEach((name, value) -> System.out.printf("%-16s %s%n", name, value));
    }
  }

  private static double millis(long nanos) {
    return Math.round(nanos / 1e4) / 100.0;
  }
}

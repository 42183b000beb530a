package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtySource;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.SectionInput;
import dev.tidemark.engine.stream.SectionOutput;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Callbacks that throw, exceptions and errors, one or all of them: each later step is tried all the
 * same, the guest is where the outcome says, and the first failure is told.
 */
@Timeout(120)
class UnwindTest {
  private static final long PAGES = 100;

  /** What throws at the source. */
  enum Step {
    SAVE,
    COMPLETE,
    QUIESCE,
    STOP_GUEST,
    PREPARE,
    RUN,
    RESUME,
    LEAVE,
    STOP_SOURCE
  }

  private final List<String> calls = new ArrayList<>();
  private final Map<Step, Throwable> failures = new EnumMap<>(Step.class);
  private final Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
  private final Mapping copy = Mapping.anonymous(PAGES * Pages.SIZE);
  private final Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
  private final Socket out = Socket.connect(listener.localAddress());
  private final Socket in = listener.accept();
  private final DirtyTracker tracker =
      new DirtyTracker(List.of(new RamBlock("ram", memory.segment())));

  private volatile boolean runsHere = true;
  private volatile boolean runsThere;
  private volatile int aborted;

  @AfterEach
  void close() {
    failures.clear();
    tracker.close();
    out.close();
    in.close();
    listener.close();
    memory.close();
    copy.close();
  }

  private void step(Step step) {
    calls.add(step.name());
    Throwable failure = failures.get(step);
    if (failure instanceof Error error) {
      throw error;
    }
    if (failure != null) {
      throw (RuntimeException) failure;
    }
  }

  private final class Source implements DirtySource {
    @Override
    public String name() {
      return "all";
    }

    @Override
    public void cover(Coverage coverage) {
      coverage.add(tracker.logs().getFirst(), 0, PAGES);
    }

    @Override
    public void start() {}

    @Override
    public void sync() {}

    @Override
    public void markAll() {}

    @Override
    public void stop() {
      step(Step.STOP_SOURCE);
    }

    @Override
    public void close() {}
  }

  private final class Device implements OutgoingDevice {
    private final int instance;

    Device(int instance) {
      this.instance = instance;
    }

    @Override
    public String name() {
      return "device";
    }

    @Override
    public int instance() {
      return instance;
    }

    @Override
    public int version() {
      return 1;
    }

    @Override
    public void start() {}

    @Override
    public void setup(SectionOutput data) {
      data.be8(1);
    }

    @Override
    public void part(SectionOutput data) {
      data.be8(1);
    }

    @Override
    public long bytesSaved() {
      return 0;
    }

    @Override
    public long pendingBytes() {
      return 0;
    }

    @Override
    public boolean initialDataSent() {
      return true;
    }

    @Override
    public void quiesce() {
      step(Step.QUIESCE);
    }

    @Override
    public void stop() {}

    @Override
    public void complete(SectionOutput data) {
      step(Step.COMPLETE);
      data.be8(1);
    }

    @Override
    public void leave() {
      step(Step.LEAVE);
    }

    @Override
    public void prepareToRun() {
      step(Step.PREPARE);
    }

    @Override
    public void run() {
      step(Step.RUN);
    }
  }

  private class ArrivingDevice implements IncomingDevice {
    private final int instance;

    ArrivingDevice(int instance) {
      this.instance = instance;
    }

    @Override
    public String name() {
      return "device";
    }

    @Override
    public int instance() {
      return instance;
    }

    @Override
    public int version() {
      return 1;
    }

    @Override
    public void start() {}

    @Override
    public void load(SectionInput data) {
      data.be8();
    }

    @Override
    public void end() {}

    @Override
    public void prepareToRun() {}

    @Override
    public void run() {}

    @Override
    public void abort() {
      aborted++;
    }
  }

  private final GuestControl here =
      new GuestControl() {
        @Override
        public void stop() {
          runsHere = false;
          step(Step.STOP_GUEST);
        }

        @Override
        public void resume() {
          step(Step.RESUME);
          runsHere = true;
        }
      };

  private final GuestControl there =
      new GuestControl() {
        @Override
        public void stop() {}

        @Override
        public void resume() {
          runsThere = true;
        }
      };

  private CompletableFuture<IncomingResult> receive(
      List<? extends IncomingDevice> devices, SectionHandler.Loader loader) {
    IncomingMigration incoming =
        new IncomingMigration(
            "tidemark",
            List.of(new RamBlock("ram", copy.segment())),
            in,
            devices,
            List.of(new SectionHandler("x", 0, 1, loader)),
            there);
    CompletableFuture<IncomingResult> arrival = new CompletableFuture<>();
    Thread.ofPlatform()
        .daemon()
        .start(
            () -> {
              try {
                arrival.complete(incoming.run());
              } catch (Throwable e) {
                arrival.completeExceptionally(e);
                in.shutdown();
              }
            });
    return arrival;
  }

  private MigrationResult migrate() {
    tracker.add(new Source());
    MigrationResult result =
        new OutgoingMigration(
                tracker,
                out,
                here,
                List.of(new Device(0), new Device(1)),
                List.of(
                    new StateSection(
                        "x",
                        0,
                        1,
                        data -> {
                          step(Step.SAVE);
                          data.be8(1);
                        })),
                MigrationOptions.DEFAULT,
                p -> {})
            .run();
    if (result.outcome() != Outcome.COMPLETED) {
      out.shutdown();
    }
    return result;
  }

  private List<ArrivingDevice> arrivingDevices() {
    return List.of(new ArrivingDevice(0), new ArrivingDevice(1));
  }

  private static Throwable failure(boolean error, Step step) {
    return error ? new StackOverflowError("in " + step) : new IllegalStateException("in " + step);
  }

  @ParameterizedTest
  @EnumSource(Step.class)
  void anErrorInOneStepLeavesNoStepOut(Step thrower) throws Exception {
    oneStep(thrower, true);
  }

  @ParameterizedTest
  @EnumSource(Step.class)
  void anExceptionInOneStepLeavesNoStepOut(Step thrower) throws Exception {
    oneStep(thrower, false);
  }

  private void oneStep(Step thrower, boolean error) throws Exception {
    Set<Step> afterGo = EnumSet.of(Step.LEAVE, Step.STOP_SOURCE);
    failures.put(thrower, failure(error, thrower));
    if (EnumSet.of(Step.PREPARE, Step.RUN, Step.RESUME).contains(thrower)) {
      // These come only on the way back.
      failures.put(Step.SAVE, new IllegalStateException("no such register"));
    }
    CompletableFuture<IncomingResult> arrival = receive(arrivingDevices(), SectionInput::be8);
    MigrationResult result = migrate();
    assertFalse(tracker.isTracking());
    assertTrue(result.reason().contains("in " + thrower), result.reason());
    assertEquals(1, calls.stream().filter(Step.STOP_SOURCE.name()::equals).count());
    if (afterGo.contains(thrower)) {
      assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
      assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
      assertTrue(runsThere && !runsHere);
      assertEquals(2, calls.stream().filter(Step.LEAVE.name()::equals).count());
      return;
    }
    assertEquals(Outcome.FAILED, result.outcome(), result.reason());
    assertThrows(ExecutionException.class, () -> arrival.get(60, TimeUnit.SECONDS));
    assertEquals(thrower != Step.RESUME, runsHere);
    assertFalse(runsThere);
    assertEquals(2, aborted, "the destination's devices");
    List<String> back = calls.subList(calls.indexOf(Step.PREPARE.name()), calls.size());
    assertEquals(List.of("PREPARE", "PREPARE", "RUN", "RUN", "RESUME", "STOP_SOURCE"), back);
  }

  @Test
  void everyStepBackFailsAndAllAreTold() {
    for (Step step : Step.values()) {
      if (step != Step.STOP_GUEST && step != Step.QUIESCE && step != Step.COMPLETE) {
        failures.put(step, failure(step.ordinal() % 2 == 0, step));
      }
    }
    receive(arrivingDevices(), SectionInput::be8);
    MigrationResult result = migrate();
    assertEquals(Outcome.FAILED, result.outcome());
    for (Step step : List.of(Step.SAVE, Step.PREPARE, Step.RUN, Step.RESUME, Step.STOP_SOURCE)) {
      assertTrue(result.reason().contains("in " + step), step + ": " + result.reason());
    }
    assertFalse(result.reason().contains("\n"));
  }

  /** The same throwable from the load and from each abort: it cannot suppress itself. */
  @Test
  void everyDeviceOfTheDestinationForgetsWhateverTheOthersThrow() throws Exception {
    StackOverflowError failure = new StackOverflowError("deep");
    List<IncomingDevice> devices = new ArrayList<>();
    for (int i = 0; i < 2; i++) {
      devices.add(
          new ArrivingDevice(i) {
            @Override
            public void abort() {
              super.abort();
              throw failure;
            }
          });
    }
    CompletableFuture<IncomingResult> arrival =
        receive(
            devices,
            data -> {
              data.be8();
              throw failure;
            });
    MigrationResult result = migrate();
    assertEquals(Outcome.FAILED, result.outcome());
    assertTrue(result.reason().contains("the destination gave up"), result.reason());
    ExecutionException thrown =
        assertThrows(ExecutionException.class, () -> arrival.get(60, TimeUnit.SECONDS));
    assertSame(failure, thrown.getCause());
    assertEquals(2, aborted);
    assertTrue(runsHere && !runsThere);
  }

  @Test
  void aSecondRunIsRefusedAndSendsNothing() throws Exception {
    CompletableFuture<IncomingResult> arrival = receive(arrivingDevices(), SectionInput::be8);
    tracker.add(new Source());
    OutgoingMigration migration =
        new OutgoingMigration(
            tracker,
            out,
            here,
            List.of(new Device(0), new Device(1)),
            List.of(new StateSection("x", 0, 1, data -> data.be8(1))),
            MigrationOptions.DEFAULT,
            p -> {});
    assertEquals(Outcome.COMPLETED, migration.run().outcome());
    assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
    int before = calls.size();
    assertThrows(IllegalStateException.class, migration::run);
    assertEquals(before, calls.size(), calls.toString());
    assertFalse(in.awaitReadable(0), "not a byte");
  }

  @Test
  void aSecondRunOfTheDestinationIsRefusedAndSendsNothing() throws Exception {
    IncomingMigration incoming =
        new IncomingMigration(
            "tidemark",
            List.of(new RamBlock("ram", copy.segment())),
            in,
            arrivingDevices(),
            List.of(new SectionHandler("x", 0, 1, SectionInput::be8)),
            there);
    CompletableFuture<IncomingResult> arrival =
        CompletableFuture.supplyAsync(incoming::run, task -> Thread.ofPlatform().start(task));
    assertEquals(Outcome.COMPLETED, migrate().outcome());
    assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
    assertThrows(IllegalStateException.class, incoming::run);
    assertFalse(out.awaitReadable(0), "not a byte");
    assertEquals(0, aborted, "the guest runs here: its devices are not to forget");
    assertFalse(incoming.cancel());
  }

  @Test
  void whatIsWrongWithTheSectionsIsSaidAtOnce() {
    assertThrows(IllegalArgumentException.class, () -> new StateSection("", 0, 1, data -> {}));
    assertThrows(
        IllegalArgumentException.class, () -> new StateSection("x".repeat(256), 0, 1, data -> {}));
    assertThrows(NullPointerException.class, () -> new StateSection("x", 0, 1, null));
    assertThrows(NullPointerException.class, () -> new StateSection(null, 0, 1, data -> {}));
    StateSection one = new StateSection("device", 0, 1, data -> {});
    assertRefused(IllegalArgumentException.class, here, List.of(), List.of(one, one), p -> {});
    assertRefused(
        IllegalArgumentException.class, here, List.of(new Device(0)), List.of(one), p -> {});
    assertRefused(
        IllegalArgumentException.class,
        here,
        List.of(),
        List.of(new StateSection("ram", 0, 1, data -> {})),
        p -> {});
    assertRefused(NullPointerException.class, null, List.of(), List.of(), p -> {});
    assertRefused(NullPointerException.class, here, List.of(), List.of(), null);
    assertThrows(
        NullPointerException.class,
        () ->
            new IncomingMigration(
                "x", List.of(new RamBlock("ram", copy.segment())), in, List.of(), null));
  }

  private void assertRefused(
      Class<? extends Throwable> with,
      GuestControl guest,
      List<OutgoingDevice> devices,
      List<StateSection> sections,
      Consumer<Progress> progress) {
    assertThrows(
        with,
        () ->
            new OutgoingMigration(
                tracker, out, guest, devices, sections, MigrationOptions.DEFAULT, progress));
  }
}

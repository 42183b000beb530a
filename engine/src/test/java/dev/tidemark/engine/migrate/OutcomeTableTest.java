package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.SectionInput;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * The table of the handover, cell by cell: each step of it, broken in each way. Never two guests;
 * never none without both ends saying so; and what the one end says is true of the other.
 */
@Timeout(300)
class OutcomeTableTest {
  private static final long PAGES = 64;

  /** Bytes of an answer. */
  private static final long ANSWER = 8;

  /** At the first PING, after the only round, after the last page: then comes go. */
  private static final long PONGS = 3 * ANSWER;

  private static final long ALL_ANSWERS = PONGS + ANSWER;

  @BeforeEach
  void requireKernel() {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
  }

  /** Where a connection breaks: after so many bytes of a direction. */
  private record Cell(boolean forward, long at, Set<Outcome> allowed) {}

  /** What both ends said and did. */
  private record Ends(
      MigrationResult said,
      IncomingResult arrived,
      Throwable refused,
      boolean runsHere,
      boolean runsThere,
      boolean sameMemory,
      long passedForward,
      long passedBack) {}

  /** A guest that only knows whether it runs. */
  private static class Flag implements GuestControl {
    private volatile boolean running;

    Flag(boolean running) {
      this.running = running;
    }

    @Override
    public void stop() {
      running = false;
    }

    @Override
    public void resume() {
      running = true;
    }
  }

  private static Ends migrate(boolean forward, long at, Relay.Fault fault) throws Exception {
    return migrate(forward, at, fault, new Flag(false), new OneByteArrival());
  }

  private static Ends migrate(
      boolean forward, long at, Relay.Fault fault, Flag there, OneByteArrival deviceThere)
      throws Exception {
    // Silence takes as long as the limit; with a short one a busy machine is silent enough.
    Duration limit = Duration.ofSeconds(fault == Relay.Fault.SILENCE ? 20 : 60);
    MigrationOptions options =
        new MigrationOptions(
            Duration.ofSeconds(10),
            0,
            30,
            Duration.ofMinutes(2),
            AtLimit.FAIL,
            limit,
            Duration.ofMinutes(2),
            true,
            "test");
    Flag here = new Flag(true);
    try (Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
        Mapping copy = Mapping.anonymous(PAGES * Pages.SIZE);
        Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Relay relay = new Relay(listener.localAddress(), forward, at, fault);
        Socket out = Socket.connect(relay.address());
        Socket in = listener.accept();
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
      for (long page = 0; page < PAGES; page += 2) {
        memory.segment().asSlice(page * Pages.SIZE, Pages.SIZE).fill((byte) (page + 1));
      }
      tracker.add(new PagemapScanSource(tracker.logs()));
      IncomingMigration incoming =
          new IncomingMigration(
              "test",
              List.of(new RamBlock("ram", copy.segment())),
              in,
              List.of(deviceThere),
              List.of(new SectionHandler("x", 0, 1, SectionInput::be8)),
              there,
              limit);
      IncomingResult[] arrived = {null};
      Throwable[] refused = {null};
      Thread destination =
          Thread.ofPlatform()
              .start(
                  () -> {
                    try {
                      arrived[0] = incoming.run();
                    } catch (Throwable e) {
                      refused[0] = e;
                      in.shutdown();
                    }
                  });
      MigrationResult said =
          new OutgoingMigration(
                  tracker,
                  out,
                  here,
                  List.of(new OneByteDevice()),
                  List.of(new StateSection("x", 0, 1, data -> data.be8(1))),
                  options,
                  p -> {})
              .run();
      if (said.outcome() != Outcome.COMPLETED) {
        out.shutdown();
      }
      destination.join();
      assertFalse(tracker.isTracking());
      return new Ends(
          said,
          arrived[0],
          refused[0],
          here.running,
          there.running,
          memory.segment().mismatch(copy.segment()) < 0,
          relay.passedForward(),
          relay.passedBack());
    }
  }

  private static void check(Ends ends, Set<Outcome> allowed, String cell) {
    String said = cell + ": " + ends;
    Outcome outcome = ends.said.outcome();
    assertTrue(allowed.contains(outcome), said);
    assertFalse(ends.runsHere && ends.runsThere, "two guests: " + said);
    assertEquals(ends.runsThere, ends.arrived != null, "the destination's word: " + said);
    assertEquals(ends.runsThere, ends.refused == null, "the destination's word: " + said);
    assertEquals(outcome == Outcome.FAILED, ends.runsHere, "the source's word: " + said);
    assertEquals(outcome == Outcome.COMPLETED, ends.said.reason().isEmpty(), said);
    switch (outcome) {
      case COMPLETED -> assertTrue(ends.runsThere && ends.arrived.told(), said);
      case FAILED, NOWHERE -> assertFalse(ends.runsThere, said);
      case UNKNOWN -> assertTrue(ends.runsThere || ends.refused != null, said);
      case CANCELLED -> throw new AssertionError(said);
    }
    if (ends.arrived != null) {
      assertEquals(ends.arrived.told(), ends.arrived.problem().isEmpty(), said);
      assertTrue(ends.sameMemory, said);
    }
  }

  private static List<Cell> cells(long all, Relay.Fault fault) {
    boolean drips = fault == Relay.Fault.DRIP;
    Set<Outcome> before =
        drips ? EnumSet.of(Outcome.FAILED, Outcome.COMPLETED) : EnumSet.of(Outcome.FAILED);
    // The end of the connection is seen before go, or it is not; a destination that saw it may say
    // that nothing runs there, and go may cross that.
    Set<Outcome> atGo =
        EnumSet.of(Outcome.FAILED, Outcome.UNKNOWN, Outcome.NOWHERE, Outcome.COMPLETED);
    Set<Outcome> after = EnumSet.of(drips ? Outcome.COMPLETED : Outcome.UNKNOWN);
    Set<Outcome> over = EnumSet.of(Outcome.COMPLETED, Outcome.UNKNOWN);
    List<Cell> cells = new ArrayList<>();
    // The header; the first PING; the middle of the round; its end; the state; all but go.
    if (!drips) {
      for (long at : new long[] {0, 3, 20, 40, all / 2, all - 100, all - 30, all - 10}) {
        cells.add(new Cell(true, at, before));
      }
    }
    cells.add(new Cell(true, all - 30, before));
    cells.add(new Cell(true, all - 1, atGo));
    cells.add(new Cell(true, all, atGo));
    for (long at = 0; at < PONGS; at += 4) {
      cells.add(new Cell(false, at, before));
    }
    cells.add(new Cell(false, PONGS, atGo));
    cells.add(new Cell(false, PONGS + 4, after));
    cells.add(new Cell(false, ALL_ANSWERS, over));
    return cells;
  }

  @ParameterizedTest
  @EnumSource(Relay.Fault.class)
  void everyStepBrokenInEveryWay(Relay.Fault fault) throws Exception {
    Ends whole = migrate(true, 0, Relay.Fault.NONE);
    check(whole, EnumSet.of(Outcome.COMPLETED), "nothing broken");
    assertEquals(ALL_ANSWERS, whole.passedBack);
    if (fault == Relay.Fault.NONE) {
      return;
    }
    List<Cell> cells = cells(whole.passedForward, fault);
    try (ExecutorService pool = Executors.newFixedThreadPool(cells.size())) {
      List<Future<Ends>> ends =
          cells.stream().map(c -> pool.submit(() -> migrate(c.forward, c.at, fault))).toList();
      for (int i = 0; i < cells.size(); i++) {
        Cell cell = cells.get(i);
        check(ends.get(i).get(250, TimeUnit.SECONDS), cell.allowed, fault + " at " + cell);
      }
    }
  }

  /** Where the destination fails after go, and whether with an exception or an error. */
  enum AfterGo {
    PREPARE,
    RUN,
    RESUME
  }

  @ParameterizedTest
  @EnumSource(AfterGo.class)
  void aDestinationThatCannotRunTheGuestSaysThatItRunsNowhere(AfterGo where) throws Exception {
    for (Throwable failure :
        List.of(new IllegalStateException("the disk is locked"), new StackOverflowError("deep"))) {
      OneByteArrival device =
          new OneByteArrival() {
            @Override
            public void prepareToRun() {
              fail(where == AfterGo.PREPARE, failure);
            }

            @Override
            public void run() {
              super.run();
              fail(where == AfterGo.RUN, failure);
            }
          };
      Flag there =
          new Flag(false) {
            @Override
            public void resume() {
              fail(where == AfterGo.RESUME, failure);
              super.resume();
            }
          };
      Ends ends = migrate(true, 0, Relay.Fault.NONE, there, device);
      check(ends, EnumSet.of(Outcome.NOWHERE), where + ", " + failure);
      assertTrue(ends.said.reason().contains("runs nowhere"), ends.said.reason());
      assertTrue(ends.refused.getMessage().contains("runs nowhere"), ends.refused.getMessage());
      assertEquals(failure, ends.refused.getCause());
      assertFalse(device.isRunning(), "a device of a guest that runs nowhere must not run");
    }
  }

  private static void fail(boolean here, Throwable failure) {
    if (here && failure instanceof Error error) {
      throw error;
    }
    if (here) {
      throw (RuntimeException) failure;
    }
  }

  /** The source is reset when the guest runs here already: that is no reason to say otherwise. */
  @Test
  void aGuestThatRunsIsNotTakenBackBecauseTheSourceCannotBeTold() throws Exception {
    try (Mapping memory = Mapping.anonymous(PAGES * Pages.SIZE);
        Mapping copy = Mapping.anonymous(PAGES * Pages.SIZE);
        Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Relay between = new Relay(listener.localAddress(), true, 0, Relay.Fault.NONE);
        Socket out = Socket.connect(between.address());
        Socket in = listener.accept();
        DirtyTracker tracker = new DirtyTracker(List.of(new RamBlock("ram", memory.segment())))) {
      tracker.add(new PagemapScanSource(tracker.logs()));
      Flag here = new Flag(true);
      Flag there =
          new Flag(false) {
            @Override
            public void resume() {
              super.resume();
              try {
                between.reset();
              } catch (IOException e) {
                throw new AssertionError(e);
              }
              assertTrue(in.awaitReadable(60_000), "the reset must have arrived");
            }
          };
      IncomingMigration incoming =
          new IncomingMigration(
              "tidemark", List.of(new RamBlock("ram", copy.segment())), in, List.of(), there);
      Future<MigrationResult> said;
      try (ExecutorService pool = Executors.newSingleThreadExecutor()) {
        said =
            pool.submit(
                () ->
                    new OutgoingMigration(
                            tracker, out, here, List.of(), MigrationOptions.DEFAULT, p -> {})
                        .run());
        IncomingResult arrived = incoming.run();
        assertTrue(there.running);
        assertFalse(arrived.told(), arrived.toString());
        assertFalse(arrived.problem().isEmpty());
        assertEquals(Outcome.UNKNOWN, said.get().outcome(), said.get().reason());
        assertFalse(here.running);
      }
    }
  }
}

package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.stream.ReturnPath;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.nio.file.Path;
import java.time.Duration;
import java.time.temporal.ChronoUnit;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Each wait ends, for the right reason; and what only takes long goes well. */
@Timeout(120)
class DeadlineTest {
  private Ends ends = new Ends(512);

  @AfterEach
  void close() {
    ends.close();
  }

  private MigrationResult run(MigrationOptions options) {
    MigrationResult result = ends.outgoing(options).run();
    if (result.outcome() != Outcome.COMPLETED) {
      ends.out.shutdown();
    }
    return result;
  }

  /** A destination that takes a byte at a time once the guest is stopped. */
  @Test
  void aDestinationThatDripsGetsNoStoppedGuest() throws Exception {
    byte[] state = new byte[1 << 16];
    ends.sections = List.of(new StateSection("x", 0, 1, data -> data.bytes(state)));
    ends.handlers = List.of(new SectionHandler("x", 0, 1, data -> data.skip(state.length)));
    // Half of the pages have content; then comes the state.
    long ram = 257 * (Pages.SIZE + 8L) + 256 * 9;
    try (Relay relay = new Relay(ends.address(), true, ram, Relay.Fault.DRIP)) {
      ends.connect(relay.address());
      CompletableFuture<IncomingResult> arrival = ends.receive();
      MigrationResult result = run(Ends.OPTIONS.withStopLimit(Duration.ofSeconds(2)));
      assertEquals(Outcome.FAILED, result.outcome(), result.reason());
      assertTrue(
          result.reason().contains("longer than the stop limit of 2000 ms"), result.reason());
      assertTrue(ends.here.running);
      relay.cut();
      assertNotNull(Ends.failure(arrival));
      assertFalse(ends.there.running);
    }
  }

  /** A byte at a time while the guest runs: the time limit ends it, in the middle of a write. */
  @Test
  void theTimeLimitEndsAMigrationWhoseDestinationDrips() throws Exception {
    ends.close();
    ends = new Ends(4096);
    try (Relay relay = new Relay(ends.address(), true, 10_000, Relay.Fault.DRIP)) {
      ends.connect(relay.address());
      CompletableFuture<IncomingResult> arrival = ends.receive();
      MigrationResult result =
          run(Ends.OPTIONS.withLimits(30, Duration.ofSeconds(2), AtLimit.FAIL));
      assertEquals(Outcome.FAILED, result.outcome(), result.reason());
      assertTrue(result.reason().startsWith("after 2000 ms there are still "), result.reason());
      assertTrue(result.reason().contains("no speed was measured yet"), result.reason());
      assertTrue(ends.here.running);
      relay.cut();
      assertNotNull(Ends.failure(arrival));
    }
  }

  /** Nothing is taken in once the pages come: the write ends, and says for how long it waited. */
  @Test
  void aDestinationThatTakesNothingIsNamed() throws Exception {
    ends.close();
    ends = new Ends(16_384);
    try (Relay relay = new Relay(ends.address(), true, 100_000, Relay.Fault.SILENCE)) {
      ends.connect(relay.address());
      CompletableFuture<IncomingResult> arrival = ends.receive();
      MigrationResult result = run(Ends.OPTIONS.withAnswerLimit(Duration.ofSeconds(1)));
      assertEquals(Outcome.FAILED, result.outcome());
      assertTrue(
          result.reason().startsWith("the destination took in nothing for 1000 ms"),
          result.reason());
      assertTrue(ends.here.running);
      relay.cut();
      assertNotNull(Ends.failure(arrival));
    }
  }

  @Test
  void aSilentSourceIsGivenUp() {
    ends.idleLimit = Duration.ofMillis(300);
    CompletableFuture<IncomingResult> arrival = ends.receive();
    ExecutionException e =
        assertThrows(ExecutionException.class, () -> arrival.get(60, TimeUnit.SECONDS));
    assertTrue(e.getMessage().contains("EAGAIN"), e.getMessage());
    assertFalse(ends.there.running);
  }

  /** Longer than every limit on answers: neither the guest's stop nor a throttle is a stall. */
  @Test
  void aGuestThatTakesLongToStopArrives() throws Exception {
    ends.here =
        new Ends.Guest(true) {
          @Override
          public void stop() {
            sleep(3000);
            super.stop();
          }
        };
    CompletableFuture<IncomingResult> arrival = ends.receive();
    MigrationResult result = run(Ends.OPTIONS.withAnswerLimit(Duration.ofSeconds(1)));
    assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
    assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
  }

  /** At 400 kB/s a batch of 2 MiB takes longer than either side waits for the other. */
  @Test
  void aLowBandwidthLimitIsNoStall() throws Exception {
    ends.close();
    ends = new Ends(1024);
    ends.idleLimit = Duration.ofSeconds(2);
    CompletableFuture<IncomingResult> arrival = ends.receive();
    MigrationResult result =
        run(
            Ends.OPTIONS
                .withDowntimeLimit(Duration.ofMillis(100))
                .withMaxBandwidth(400_000)
                .withAnswerLimit(Duration.ofSeconds(2)));
    assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
    assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
    assertTrue(ends.sameMemory());
  }

  @Test
  void theTimeLimitCutsTheWaitForTheBandwidthLimitAndBlamesIt() throws Exception {
    CompletableFuture<IncomingResult> arrival = ends.receive();
    MigrationResult result =
        run(
            Ends.OPTIONS
                .withDowntimeLimit(Duration.ofMillis(100))
                .withMaxBandwidth(500)
                .withLimits(30, Duration.ofSeconds(1), AtLimit.FAIL));
    assertEquals(Outcome.FAILED, result.outcome());
    assertTrue(result.reason().startsWith("after 1000 ms there are still "), result.reason());
    assertTrue(result.reason().contains("bandwidth limit of 0 kB/s"), result.reason());
    // A page takes 8 s at that limit; a hang would be that of all 256.
    assertTrue(result.totalNanos() < 60_000_000_000L, result.toString());
    assertTrue(ends.here.running);
    assertThrows(ExecutionException.class, () -> arrival.get(60, TimeUnit.SECONDS));
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 2, 3, 4})
  void durationsOfCenturiesAreNoLimit(int which) throws Exception {
    Duration ever = ChronoUnit.FOREVER.getDuration();
    Duration[] limits = {
      Duration.ofSeconds(10),
      Duration.ofMinutes(1),
      Duration.ofMinutes(1),
      Duration.ofMinutes(1),
      Duration.ofMinutes(1)
    };
    limits[which] = ever;
    ends.idleLimit = limits[4];
    CompletableFuture<IncomingResult> arrival = ends.receive();
    MigrationResult result =
        run(
            new MigrationOptions(
                limits[0], 0, 30, limits[1], AtLimit.FAIL, limits[2], limits[3], true, "tidemark"));
    assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
    assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
    assertEquals(ever, Ends.OPTIONS.withDowntimeLimit(ever).downtimeLimit());
  }

  @Test
  void answersThatComeBeforeTheirQuestionDoNotCount() {
    try (ReturnPath early = new ReturnPath(ends.in)) {
      early.pong(0);
      early.pong(1);
      early.shut(0);
      MigrationResult result = run(Ends.OPTIONS);
      assertEquals(Outcome.FAILED, result.outcome());
      assertEquals("return path: expected nothing before PING, found PONG 0", result.reason());
      assertTrue(ends.here.running);
    }
  }

  @Test
  void aDestinationThatGaveUpBeforeItWasAskedIsQuoted() {
    try (ReturnPath early = new ReturnPath(ends.in)) {
      early.shut(1);
      MigrationResult result = run(Ends.OPTIONS);
      assertEquals(Outcome.FAILED, result.outcome());
      assertTrue(result.reason().contains("the destination gave up"), result.reason());
    }
  }

  /** The other end takes nothing, no limit is near, and a thread closes the socket meanwhile. */
  @Test
  void aSocketClosedDuringTheStopEndsTheStop(@TempDir Path folder) throws Exception {
    byte[] state = new byte[16 << 20];
    CountDownLatch loading = new CountDownLatch(1);
    CountDownLatch closed = new CountDownLatch(1);
    ends.sections = List.of(new StateSection("x", 0, 1, data -> data.bytes(state)));
    ends.handlers =
        List.of(
            new SectionHandler(
                "x",
                0,
                1,
                data -> {
                  loading.countDown();
                  await(closed);
                  data.skip(state.length);
                }));
    // TCP would give up by itself after a minute.
    Path path = folder.resolve("socket");
    try (Socket listener = Socket.listen(path)) {
      ends.out.close();
      ends.in.close();
      ends.out = Socket.connect(path);
      ends.in = listener.accept();
    }
    OutgoingMigration migration =
        ends.outgoing(
            Ends.OPTIONS
                .withAnswerLimit(Duration.ofMinutes(10))
                .withStopLimit(Duration.ofMinutes(10)));
    CompletableFuture<IncomingResult> arrival = ends.receive();
    CompletableFuture<MigrationResult> said = new CompletableFuture<>();
    Thread.ofPlatform().daemon().start(() -> said.complete(migration.run()));
    await(loading);
    // Time to fill the connection, where the write waits then; the outcome does not depend on it.
    sleep(500);
    ends.out.close();
    MigrationResult result = said.get(60, TimeUnit.SECONDS);
    closed.countDown();
    assertEquals(Outcome.FAILED, result.outcome(), result.reason());
    assertTrue(result.reason().contains("is closed"), result.reason());
    assertTrue(ends.here.running);
    assertNotNull(Ends.failure(arrival));
    assertFalse(ends.there.running);
  }

  /** Cancelled after somebody closed its socket. */
  @Test
  void aMigrationWhoseSocketIsClosedCanBeCancelled() {
    OutgoingMigration outgoing = ends.outgoing(Ends.OPTIONS);
    IncomingMigration incoming = ends.incoming();
    ends.out.close();
    ends.in.close();
    assertTrue(outgoing.cancel());
    assertTrue(incoming.cancel());
    MigrationResult result = outgoing.run();
    assertEquals(Outcome.CANCELLED, result.outcome());
    assertEquals(-1, result.firstPageNanos());
    assertThrows(CancellationException.class, incoming::run);
    assertTrue(ends.here.running);
    assertFalse(ends.there.running);
  }

  @Test
  void theWatchdogGoesOnAfterALookThatFailed() throws Exception {
    CountDownLatch looks = new CountDownLatch(3);
    try (Watchdog watchdog =
        Watchdog.start(
            () -> {
              looks.countDown();
              throw new IllegalStateException("this look fails");
            })) {
      assertNotNull(watchdog);
      assertTrue(looks.await(60, TimeUnit.SECONDS));
    }
  }

  private static void await(CountDownLatch latch) {
    try {
      assertTrue(latch.await(100, TimeUnit.SECONDS));
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  private static void sleep(long millis) {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }
}

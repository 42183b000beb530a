package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.SectionInput;
import dev.tidemark.ffm.Pages;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** An interrupt of either end's thread cancels before go, changes nothing after it, and stays. */
@Timeout(120)
class InterruptTest {
  private final Ends ends = new Ends(4096);
  private volatile boolean stillInterrupted;

  @AfterEach
  void close() {
    ends.close();
  }

  private CompletableFuture<MigrationResult> send(
      MigrationOptions options, AtomicReference<Thread> runner) {
    OutgoingMigration migration = ends.outgoing(options);
    CompletableFuture<MigrationResult> result = new CompletableFuture<>();
    Thread thread =
        Thread.ofPlatform()
            .daemon()
            .unstarted(
                () -> {
                  try {
                    MigrationResult ended = migration.run();
                    stillInterrupted = Thread.currentThread().isInterrupted();
                    result.complete(ended);
                  } catch (Throwable e) {
                    result.completeExceptionally(e);
                  }
                });
    runner.set(thread);
    thread.start();
    return result;
  }

  private void assertCancelled(MigrationResult result, CompletableFuture<IncomingResult> arrival)
      throws Exception {
    ends.out.shutdown();
    assertEquals(Outcome.CANCELLED, result.outcome(), result.reason());
    assertTrue(stillInterrupted, "the status is the caller's");
    assertTrue(ends.here.running);
    assertFalse(ends.tracker.isTracking());
    assertNotNull(Ends.failure(arrival));
    assertFalse(ends.there.running);
  }

  @Test
  void cancelsASourceThatWaitsForItsBandwidthLimit() throws Exception {
    CountDownLatch sending = new CountDownLatch(1);
    ends.progress =
        p -> {
          if (p.bytesSent() > 0) {
            sending.countDown();
          }
        };
    CompletableFuture<IncomingResult> arrival = ends.receive();
    AtomicReference<Thread> runner = new AtomicReference<>();
    CompletableFuture<MigrationResult> result =
        send(Ends.OPTIONS.withMaxBandwidth(200_000), runner);
    sending.await();
    runner.get().interrupt();
    MigrationResult ended = result.get(60, TimeUnit.SECONDS);
    assertCancelled(ended, arrival);
    assertTrue(
        ended.bytesSent() < 4 * 512 * Pages.SIZE, "the limit was lifted: " + ended.bytesSent());
  }

  @Test
  void cancelsASourceWhoseDestinationTakesNothing() throws Exception {
    // Nobody reads, so that the source waits in a write or for its first answer.
    AtomicReference<Thread> runner = new AtomicReference<>();
    CompletableFuture<MigrationResult> result = send(Ends.OPTIONS, runner);
    assertTrue(ends.in.awaitReadable(60_000));
    runner.get().interrupt();
    MigrationResult ended = result.get(30, TimeUnit.SECONDS);
    assertEquals(Outcome.CANCELLED, ended.outcome(), ended.reason());
    assertTrue(stillInterrupted);
    assertTrue(ends.here.running);
  }

  @Test
  void cancelsAtOnceWhereItWasSetBefore() {
    Thread.currentThread().interrupt();
    MigrationResult result = ends.outgoing(Ends.OPTIONS).run();
    assertTrue(Thread.interrupted());
    assertEquals(Outcome.CANCELLED, result.outcome(), result.reason());
    assertEquals(0, result.bytesSent());
    assertTrue(ends.here.running);
  }

  @Test
  void cancelsWithTheGuestStoppedAndResumesIt() throws Exception {
    AtomicReference<Thread> runner = new AtomicReference<>();
    ends.sections =
        List.of(new StateSection("x", 0, 1, data -> Thread.currentThread().interrupt()));
    ends.here =
        new Ends.Guest(true) {
          @Override
          public void resume() {
            assertFalse(Thread.currentThread().isInterrupted(), "a callback may want to wait");
            super.resume();
          }
        };
    CompletableFuture<IncomingResult> arrival = ends.receive();
    assertCancelled(send(Ends.OPTIONS, runner).get(60, TimeUnit.SECONDS), arrival);
  }

  @Test
  void changesNothingAfterGo() throws Exception {
    AtomicReference<Thread> runner = new AtomicReference<>();
    AtomicReference<Thread> destination = new AtomicReference<>();
    ends.there =
        new Ends.Guest(false) {
          @Override
          public void resume() {
            runner.get().interrupt();
            destination.set(Thread.currentThread());
            Thread.currentThread().interrupt();
            super.resume();
          }
        };
    CompletableFuture<IncomingResult> arrival = ends.receive();
    MigrationResult result = send(Ends.OPTIONS, runner).get(60, TimeUnit.SECONDS);
    assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
    assertTrue(stillInterrupted);
    assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
    assertTrue(ends.there.running && !ends.here.running);
    assertTrue(ends.sameMemory());
  }

  @Test
  void cancelsADestinationWhoseSourceIsSilent() throws Exception {
    IncomingMigration incoming = ends.incoming();
    AtomicReference<Throwable> thrown = new AtomicReference<>();
    AtomicReference<Boolean> interrupted = new AtomicReference<>();
    Thread thread =
        Thread.ofPlatform()
            .daemon()
            .start(
                () -> {
                  try {
                    incoming.run();
                  } catch (Throwable e) {
                    thrown.set(e);
                  }
                  interrupted.set(Thread.currentThread().isInterrupted());
                });
    thread.interrupt();
    thread.join(60_000);
    assertFalse(thread.isAlive());
    assertInstanceOf(CancellationException.class, thrown.get());
    assertTrue(interrupted.get());
    assertFalse(incoming.cancel(), "it is over");
  }

  @Test
  void aCancelEndsADestinationWhoseSourceIsSilent() throws Exception {
    IncomingMigration incoming = ends.incoming();
    CompletableFuture<IncomingResult> arrival = Ends.receive(incoming, ends.in);
    assertTrue(incoming.cancel());
    assertInstanceOf(CancellationException.class, Ends.failure(arrival));
    assertFalse(ends.there.running);
  }

  @Test
  void aDestinationThatWasInterruptedWhileItLoadedTheStateTellsTheSource() throws Exception {
    ends.sections = List.of(new StateSection("x", 0, 1, data -> data.be8(1)));
    ends.handlers =
        List.of(
            new SectionHandler(
                "x",
                0,
                1,
                (SectionInput data) -> {
                  data.be8();
                  Thread.currentThread().interrupt();
                  throw new IllegalStateException("the wait was interrupted");
                }));
    CompletableFuture<IncomingResult> arrival = ends.receive();
    MigrationResult result = ends.outgoing(Ends.OPTIONS).run();
    ends.out.shutdown();
    assertEquals(Outcome.FAILED, result.outcome(), result.reason());
    assertInstanceOf(CancellationException.class, Ends.failure(arrival));
    assertTrue(ends.here.running && !ends.there.running);
  }

  /** Whoever interrupts a whole group of threads stops neither of the migration's own. */
  @Test
  void theLibrarysOwnThreadsSurviveAnInterruptAndInheritNothing() throws Exception {
    InheritableThreadLocal<String> local = new InheritableThreadLocal<>();
    local.set("the caller's");
    CountDownLatch told = new CountDownLatch(2);
    AtomicReference<String> inherited = new AtomicReference<>();
    ends.progress =
        p -> {
          inherited.set(local.get());
          Thread.currentThread().interrupt();
          told.countDown();
        };
    ends.here =
        new Ends.Guest(true) {
          @Override
          public void stop() {
            for (Thread thread : Thread.getAllStackTraces().keySet()) {
              if (thread.getName().startsWith("tidemark-")) {
                assertEquals("system", thread.getThreadGroup().getName(), thread.getName());
                assertEquals(
                    ClassLoader.getSystemClassLoader(),
                    thread.getContextClassLoader(),
                    thread.getName());
                thread.interrupt();
              }
            }
            super.stop();
          }
        };
    CompletableFuture<IncomingResult> arrival = ends.receive();
    MigrationResult result = ends.outgoing(Ends.OPTIONS).run();
    assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
    assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
    assertTrue(told.await(60, TimeUnit.SECONDS), "progress is told after an interrupt, too");
    assertEquals(null, inherited.get());
  }
}

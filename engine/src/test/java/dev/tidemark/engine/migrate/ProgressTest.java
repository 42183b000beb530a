package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Whoever is told of progress costs the guest nothing. */
@Timeout(60)
class ProgressTest {
  private static Progress progress(Progress.Phase phase, int round, long pages) {
    return new Progress(phase, round, 0, pages, 0, 0, 0, 0, 0, 0);
  }

  /** The listener returns only once the guest runs at the other end. */
  @Test
  void aListenerThatHangsDoesNotHoldTheGuest() throws Exception {
    CountDownLatch arrived = new CountDownLatch(1);
    try (Ends ends = new Ends(64)) {
      ends.there =
          new Ends.Guest(false) {
            @Override
            public void resume() {
              super.resume();
              arrived.countDown();
            }
          };
      ends.progress =
          p -> {
            try {
              arrived.await();
            } catch (InterruptedException e) {
              throw new IllegalStateException(e);
            }
          };
      CompletableFuture<IncomingResult> arrival = ends.receive();
      MigrationResult result = ends.outgoing(Ends.OPTIONS).run();
      assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
      assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
    }
  }

  @Test
  void aListenerThatThrowsHarmsNothing() throws Exception {
    AtomicInteger told = new AtomicInteger();
    try (Ends ends = new Ends(64)) {
      ends.progress =
          p -> {
            told.incrementAndGet();
            throw new AssertionError("metrics registry down");
          };
      CompletableFuture<IncomingResult> arrival = ends.receive();
      MigrationResult result = ends.outgoing(Ends.OPTIONS).run();
      assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
      assertTrue(arrival.get(60, TimeUnit.SECONDS).told());
      assertTrue(told.get() > 1, "it is told on: " + told);
    }
  }

  @Test
  void aSlowListenerGetsTheLastOfEachPhase() throws Exception {
    CountDownLatch first = new CountDownLatch(1);
    CountDownLatch go = new CountDownLatch(1);
    List<Progress> told = new ArrayList<>();
    Observer observer =
        Observer.start(
            p -> {
              told.add(p);
              first.countDown();
              try {
                go.await();
              } catch (InterruptedException e) {
                throw new IllegalStateException(e);
              }
            });
    observer.accept(progress(Progress.Phase.HARVESTED, 1, 0));
    first.await();
    for (int i = 0; i < 1000; i++) {
      observer.accept(progress(Progress.Phase.SENDING, 1, i));
    }
    observer.accept(progress(Progress.Phase.ARRIVED, 1, 1000));
    go.countDown();
    observer.close();
    assertEquals(
        List.of(
            progress(Progress.Phase.HARVESTED, 1, 0),
            progress(Progress.Phase.SENDING, 1, 999),
            progress(Progress.Phase.ARRIVED, 1, 1000)),
        told);
  }

  @Test
  void aListenerThatDoesNotReturnIsNotWaitedForAndHearsNoMore() {
    CountDownLatch never = new CountDownLatch(1);
    AtomicInteger told = new AtomicInteger();
    Observer observer =
        Observer.start(
            p -> {
              told.incrementAndGet();
              try {
                never.await();
              } catch (InterruptedException e) {
                throw new IllegalStateException(e);
              }
            });
    for (int round = 1; round < 1000; round++) {
      observer.accept(progress(Progress.Phase.ARRIVED, round, 0));
    }
    observer.close();
    never.countDown();
    assertTrue(told.get() <= 1, "" + told);
  }
}

package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.FutureTask;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class ThrottleTest {
  @Test
  void bytesTakeAtLeastTheTimeThatTheLimitGivesThem() {
    Throttle throttle = new Throttle(10_000_000);
    long start = System.nanoTime();
    for (int i = 0; i < 20; i++) {
      throttle.pace(100_000);
    }
    long took = System.nanoTime() - start;
    assertTrue(took >= 200_000_000L, took + " ns for 2 MB at 10 MB/s");
  }

  @Test
  void liftingTheLimitWakesAWaitingSender() throws Exception {
    Throttle throttle = new Throttle(1);
    CountDownLatch started = new CountDownLatch(1);
    FutureTask<Void> sender =
        Connection.inBackground(
            () -> {
              started.countDown();
              throttle.pace(1_000_000_000);
              return null;
            });
    started.await();
    throttle.limit(0);
    sender.get();
  }

  @Test
  void aNegativeLimitIsRefused() {
    assertThrows(IllegalArgumentException.class, () -> new Throttle(-1));
  }
}

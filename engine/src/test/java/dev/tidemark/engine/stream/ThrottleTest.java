package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(300)
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
    // For 31 years, were it not for the limit.
    Thread sender = Thread.ofPlatform().daemon().start(() -> throttle.pace(1_000_000_000));
    while (sender.getState() != Thread.State.TIMED_WAITING) {
      assertTrue(sender.isAlive(), "it did not wait");
      Thread.sleep(1);
    }
    throttle.limit(0);
    assertTrue(sender.join(Duration.ofSeconds(30)), "it still waits");
  }

  @Test
  void aNegativeLimitIsRefused() {
    assertThrows(IllegalArgumentException.class, () -> new Throttle(-1));
  }
}

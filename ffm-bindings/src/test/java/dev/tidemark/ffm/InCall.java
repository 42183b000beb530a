package dev.tidemark.ffm;

import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.internal.Libc;
import java.util.Arrays;

/** Whether a thread is in a function of the C library, as far as Java can see. */
public final class InCall {
  private InCall() {}

  /**
   * Waits until a thread has entered a call, and a little more, as the kernel's side of it cannot
   * be seen. What is tested must hold also when the thread is not that far.
   *
   * @param function a method of {@link Libc}
   */
  public static void await(Thread thread, String function) throws InterruptedException {
    while (!isIn(thread, function)) {
      assertTrue(thread.isAlive(), () -> thread + " ended before it called " + function);
      Thread.sleep(1);
    }
    Thread.sleep(5);
  }

  private static boolean isIn(Thread thread, String function) {
    return Arrays.stream(thread.getStackTrace())
        .filter(frame -> frame.getClassName().equals(Libc.class.getName()))
        .anyMatch(frame -> frame.getMethodName().equals(function));
  }
}

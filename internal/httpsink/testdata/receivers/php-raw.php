<?php
$body = file_get_contents('php://input');
$expected = 'sha256=' . hash_hmac('sha256', $body, getenv('PEANUTS_SECRET'));
$given = $_SERVER['HTTP_X_PEANUTS_SIGNATURE'] ?? '';

if (!hash_equals($expected, $given)) {
    http_response_code(401);
    exit('bad signature');
}

$event = json_decode($body, true);
error_log($_SERVER['HTTP_X_PEANUTS_DELIVERY'] . ' ' . $_SERVER['HTTP_X_PEANUTS_EVENT']);
http_response_code(204);
